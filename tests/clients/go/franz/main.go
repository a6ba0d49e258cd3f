// The tour with franz-go and kadm. Arguments: bootstrap address, topic.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"ottla.test/clients/tour"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var bootstrap, topic = os.Args[1], os.Args[2]

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append(options, kgo.SeedBrokers(bootstrap))...)
	if err != nil {
		panic(err)
	}
	return made
}

func create(ctx context.Context, admin *kadm.Client) error {
	retention := tour.RetentionMs
	configs := map[string]*string{"retention.ms": &retention}
	validated, err := admin.ValidateCreateTopics(ctx, tour.Partitions, -1, configs, topic)
	if err != nil || validated.Error() != nil {
		return errors.Join(err, validated.Error())
	}
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	if err := tour.Check(topics.Has(topic), false, "topic after validate only"); err != nil {
		return err
	}
	if _, err := admin.CreateTopic(ctx, tour.Partitions, -1, configs, topic); err != nil {
		return err
	}
	_, err = admin.CreateTopic(ctx, tour.Partitions, -1, configs, topic)
	return tour.Check(errors.Is(err, kerr.TopicAlreadyExists), true, fmt.Sprint("second creation: ", err))
}

func produce(ctx context.Context, index int) error {
	codecs := []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	}
	producer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codecs[index]))
	defer producer.Close()
	from, to := tour.Numbers(index)
	var records []*kgo.Record
	for n := from; n < to; n++ {
		record := &kgo.Record{
			Topic: topic, Partition: tour.Partition(n), Key: tour.Key(n), Value: tour.Value(n),
			Timestamp: time.UnixMilli(tour.Timestamp(n)),
		}
		for _, header := range tour.Headers(n) {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: header.Key, Value: header.Value})
		}
		records = append(records, record)
	}
	if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	for i, record := range records {
		if err := tour.Check(record.Offset, int64((from+i)/tour.Partitions), "acknowledged offset"); err != nil {
			return err
		}
	}
	return nil
}

// read polls from these offsets until each partition's end.
func read(ctx context.Context, from map[int32]int64) (map[int32][]tour.Record, error) {
	starts := map[int32]kgo.Offset{}
	for p, offset := range from {
		starts[p] = kgo.NewOffset().At(offset)
	}
	consumer := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: starts}))
	defer consumer.Close()
	left := 0
	for p, end := range tour.Ends() {
		left += int(end - from[p])
	}
	logs := map[int32][]tour.Record{}
	for left > 0 {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			record := tour.Record{Offset: r.Offset, TimestampMs: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
			for _, header := range r.Headers {
				record.Headers = append(record.Headers, tour.Header{Key: header.Key, Value: header.Value})
			}
			logs[r.Partition] = append(logs[r.Partition], record)
			left--
		})
	}
	return logs, nil
}

func consume(ctx context.Context) error {
	logs, err := read(ctx, tour.All(0))
	if err != nil {
		return err
	}
	return tour.Compare(logs)
}

func listed(found kadm.ListedOffsets, err error, want map[int32]int64, what string) error {
	if err != nil || found.Error() != nil {
		return errors.Join(err, found.Error())
	}
	got := map[int32]int64{}
	found.Each(func(o kadm.ListedOffset) { got[o.Partition] = o.Offset })
	return tour.Check(got, want, what)
}

func seek(ctx context.Context, admin *kadm.Client) error {
	for _, at := range []int64{0, tour.Timestamp(451) - 1, tour.Timestamp(452)} {
		found, err := admin.ListOffsetsAfterMilli(ctx, at, topic)
		if err := listed(found, err, tour.FirstAt(at), fmt.Sprint("offsets at ", at)); err != nil {
			return err
		}
	}
	// kadm turns "none" into the end offset.
	found, err := admin.ListOffsetsAfterMilli(ctx, tour.Timestamp(tour.Total), topic)
	if err := listed(found, err, tour.Ends(), "offsets after the last record"); err != nil {
		return err
	}
	logs, err := read(ctx, tour.FirstAt(tour.Timestamp(452)))
	if err != nil {
		return err
	}
	for p, log := range logs {
		if err := tour.Check(log[0].TimestampMs >= tour.Timestamp(452), true, fmt.Sprint("first after the seek in ", p)); err != nil {
			return err
		}
	}
	return nil
}

func describe(ctx context.Context, admin *kadm.Client) error {
	metadata, err := admin.Metadata(ctx, topic)
	if err != nil {
		return err
	}
	brokers := metadata.Brokers.NodeIDs()
	if err := tour.Check(len(metadata.Topics[topic].Partitions), tour.Partitions, "partitions described"); err != nil {
		return err
	}
	if metadata.Cluster == "" || metadata.Controller < 0 || len(brokers) == 0 {
		return fmt.Errorf("cluster: %+v", metadata)
	}
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return err
	}
	values := map[string]string{}
	for _, config := range configs[0].Configs {
		values[config.Key] = config.MaybeValue()
	}
	if err := tour.Check(values["retention.ms"]+values["cleanup.policy"], tour.RetentionMs+"delete", "configs"); err != nil {
		return err
	}
	brokerConfigs, err := admin.DescribeBrokerConfigs(ctx, brokers...)
	if err != nil {
		return err
	}
	for _, broker := range brokerConfigs {
		if broker.Err != nil || len(broker.Configs) == 0 {
			return fmt.Errorf("configs of broker %s: %v", broker.Name, broker.Err)
		}
	}
	versions, err := admin.ApiVersions(ctx)
	if err != nil {
		return err
	}
	return tour.Check(len(versions), len(brokers), "answers to ApiVersions")
}

func offsets(ctx context.Context, admin *kadm.Client) error {
	last := tour.Ends()
	for p := range last {
		last[p]--
	}
	for _, ask := range []struct {
		what string
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
		want map[int32]int64
	}{
		{"start", admin.ListStartOffsets, tour.All(0)},
		{"end", admin.ListEndOffsets, tour.Ends()},
		{"committed", admin.ListCommittedOffsets, tour.Ends()},
		{"max timestamp", admin.ListMaxTimestampOffsets, last},
		{"local start", admin.ListLocalLogStartOffsets, tour.All(0)},
		{"latest remote", admin.ListLatestRemoteOffsets, tour.All(-1)},
	} {
		found, err := ask.list(ctx, topic)
		if err := listed(found, err, ask.want, ask.what); err != nil {
			return err
		}
	}
	return nil
}

func remove(ctx context.Context, admin *kadm.Client) error {
	if _, err := admin.DeleteTopic(ctx, topic); err != nil {
		return err
	}
	admin = kadm.NewClient(client()) // The old one answers from its cache.
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	return tour.Check(topics.Has(topic), false, "topic after its deletion")
}

func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/twmb/franz-go" {
			return module.Version
		}
	}
	return "?"
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	admin := kadm.NewClient(client())
	run := tour.Start("franz-go", version())
	run.Step("create", func() error { return create(ctx, admin) })
	for index, codec := range tour.Codecs {
		run.Step("produce "+codec, func() error { return produce(ctx, index) })
	}
	run.Step("consume", func() error { return consume(ctx) })
	run.Step("seek", func() error { return seek(ctx, admin) })
	run.Step("describe", func() error { return describe(ctx, admin) })
	run.Step("offsets", func() error { return offsets(ctx, admin) })
	run.Step("delete", func() error { return remove(ctx, admin) })
	run.Exit()
}
