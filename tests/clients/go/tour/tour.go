// Package tour holds what every client of the tour writes and must read back, and how it reports:
// the same rules as python/tour.py, which explains them.
package tour

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	Partitions     = 6
	PartitionsMore = 8
	PerCodec       = 300
	BaseMs         = int64(1_700_000_000_000)
	RetentionMs    = "9000000000000"
	Note           = "a note \u2713" // The metadata of committed offsets.
	Session        = 6 * time.Second
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
		return fmt.Errorf("%s: got %.300s, want %.300s", what, fmt.Sprint(got), fmt.Sprint(want))
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

// Committed gives what the step "commit" commits.
func Committed() map[int32]int64 {
	offsets := map[int32]int64{}
	for p := range int32(Partitions) {
		offsets[p] = int64(10 * (p + 1))
	}
	return offsets
}

// GroupOfThree runs group.sh with this program as the member; `member` are its arguments. GROUP_SH: where it is.
func GroupOfThree(member ...string) error {
	arguments := append([]string{strconv.Itoa(Total), os.Args[0], "member"}, member...)
	output, err := exec.Command(os.Getenv("GROUP_SH"), arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("group.sh: %w: %s", err, output)
	}
	return nil
}

// Member prints what a member of group.sh prints.
type Member struct {
	lock     sync.Mutex
	assigned map[int32]bool
}

func (m *Member) print(line string) {
	m.lock.Lock()
	defer m.lock.Unlock()
	fmt.Println(line)
}

// Has tells that it has these partitions now, or has them no more.
func (m *Member) Has(partitions []int32, has bool) {
	m.lock.Lock()
	if m.assigned == nil {
		m.assigned = map[int32]bool{}
	}
	for _, p := range partitions {
		if m.assigned[p] = has; !has {
			delete(m.assigned, p)
		}
	}
	var all []string
	for _, p := range slices.Sorted(maps.Keys(m.assigned)) {
		all = append(all, fmt.Sprint(p))
	}
	m.lock.Unlock()
	m.print("assigned\t" + strings.Join(all, ","))
}

func (m *Member) Read(partition int32, offset int64) {
	m.print(fmt.Sprintf("read\t%d\t%d", partition, offset))
}

// Told gives a channel that says when the member shall leave.
func (m *Member) Told() <-chan os.Signal {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	return told
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
