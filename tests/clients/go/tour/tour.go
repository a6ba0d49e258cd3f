// Package tour holds what every client of the tour writes and must read back, and how it reports:
// the same rules as python/tour.py, which explains them.
package tour

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
)

const (
	Partitions  = 6
	PerCodec    = 300
	BaseMs      = int64(1_700_000_000_000)
	RetentionMs = "9000000000000"
)

var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// Total is the number of records of a whole tour.
var Total = len(Codecs) * PerCodec

type Header struct {
	Key   string
	Value []byte
}

type Record struct {
	Offset, TimestampMs int64
	Key, Value          []byte
	Headers             []Header
}

func Partition(n int) int32 { return int32(n % Partitions) }

func Key(n int) []byte {
	if n%7 == 0 {
		return nil
	}
	return fmt.Appendf(nil, "key-%d", n%97)
}

func Value(n int) []byte {
	if n%5 == 0 && n%7 != 0 {
		return nil
	}
	if n%11 == 0 {
		return []byte{}
	}
	return append(fmt.Appendf(nil, "value %d ", n), bytes.Repeat([]byte("abcdefgh"), n%50)...)
}

func Headers(n int) []Header {
	return []Header{{"number", fmt.Appendf(nil, "%d", n)}, {"nothing", []byte{}}}[:n%3]
}

func Timestamp(n int) int64 { return BaseMs + int64(n)*1000 }

// Numbers gives the numbers of the records that the codec of this index writes: from, to.
func Numbers(codec int) (int, int) { return codec * PerCodec, (codec + 1) * PerCodec }

func Expected() map[int32][]Record {
	logs := map[int32][]Record{}
	for n := range Total {
		p := Partition(n)
		logs[p] = append(logs[p], Record{int64(len(logs[p])), Timestamp(n), Key(n), Value(n), Headers(n)})
	}
	return logs
}

func Check(got, want any, what string) error {
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%s: got %.300v, want %.300v", what, got, want)
	}
	return nil
}

// Compare tells null from empty: a null is nil, an empty field is not.
func Compare(got map[int32][]Record) error {
	for p, log := range Expected() {
		if err := Check(len(got[p]), len(log), fmt.Sprintf("records of partition %d", p)); err != nil {
			return err
		}
		for i, want := range log {
			have := got[p][i]
			if len(have.Headers) == 0 {
				have.Headers = want.Headers[:0]
			}
			for j, header := range have.Headers {
				if header.Value == nil {
					have.Headers[j].Value = []byte{} // The tour writes no null header.
				}
			}
			if err := Check(have, want, fmt.Sprintf("partition %d offset %d", p, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// FirstAt gives for each partition the first record that is not older, -1 for none.
func FirstAt(timestampMs int64) map[int32]int64 {
	offsets := map[int32]int64{}
	for p, log := range Expected() {
		offsets[p] = -1
		for _, record := range log {
			if record.TimestampMs >= timestampMs {
				offsets[p] = record.Offset
				break
			}
		}
	}
	return offsets
}

// Ends gives for each partition the offset after its last record.
func Ends() map[int32]int64 {
	offsets := map[int32]int64{}
	for p, log := range Expected() {
		offsets[p] = int64(len(log))
	}
	return offsets
}

// All gives each partition the same offset.
func All(offset int64) map[int32]int64 {
	offsets := map[int32]int64{}
	for p := range int32(Partitions) {
		offsets[p] = offset
	}
	return offsets
}

type Tour struct{ failed int }

func Start(name, version string) *Tour {
	fmt.Printf("client\t%s\t%s\n", name, version)
	return &Tour{}
}

func (t *Tour) Step(name string, run func() error) {
	if err := run(); err != nil {
		t.failed++
		fmt.Printf("step\t%s\tfailed\t%v\n", name, err)
		return
	}
	fmt.Printf("step\t%s\tok\n", name)
}

func (t *Tour) Exit() {
	if t.failed > 0 {
		os.Exit(1)
	}
}
