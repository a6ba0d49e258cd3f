// The tour with franz-go and kadm. Arguments: bootstrap address, topic; as a member of a group: "member", bootstrap
// address, topic, group, "classic" or "consumer".
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
	"github.com/twmb/franz-go/pkg/kmsg"
)

var bootstrap, topic string

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

func inGroup(group string, options ...kgo.Opt) *kgo.Client {
	return client(append(options, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.SessionTimeout(tour.Session), kgo.HeartbeatInterval(500*time.Millisecond))...)
}

func member(group, protocol string) {
	var member tour.Member
	told := member.Told()
	ctx, cancel := context.WithCancel(context.Background())
	changed := func(has bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			member.Has(partitions[topic], has)
		}
	}
	options := []kgo.Opt{
		kgo.OnPartitionsAssigned(changed(true)), kgo.OnPartitionsRevoked(changed(false)), kgo.OnPartitionsLost(changed(false)),
	}
	if protocol == "consumer" {
		options = append(options, kgo.Balancers(kgo.RangeBalancer()), kgo.ServerSideBalancer())
	}
	consumer := inGroup(group, options...)
	go func() { <-told; cancel() }()
	for ctx.Err() == nil {
		fetches := consumer.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) { member.Read(r.Partition, r.Offset) })
		// Where the group rebalances this fails; the records are committed with the next ones, or read again.
		_ = consumer.CommitUncommittedOffsets(context.Background())
	}
	consumer.Close()
}

// firstOfEach gives the offset of the first record that comes of each partition.
func firstOfEach(ctx context.Context, consumer *kgo.Client) (map[int32]int64, error) {
	seen := map[int32]int64{}
	for len(seen) < tour.Partitions {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if _, is := seen[r.Partition]; !is {
				seen[r.Partition] = r.Offset
			}
		})
	}
	return seen, nil
}

func goesOn(ctx context.Context, consumer *kgo.Client, want map[int32]int64) error {
	seen, err := firstOfEach(ctx, consumer)
	if err != nil {
		return err
	}
	return tour.Check(seen, want, "offsets to go on from")
}

func commit(ctx context.Context, admin *kadm.Client) error {
	group := topic + "-commit"
	consumer := inGroup(group)
	defer consumer.Close()
	if err := goesOn(ctx, consumer, tour.All(0)); err != nil {
		return err
	}
	offsets := map[string]map[int32]kgo.EpochOffset{topic: {}}
	for p, at := range tour.Committed() {
		offsets[topic][p] = kgo.EpochOffset{Epoch: -1, Offset: at}
	}
	memberId, generation := consumer.GroupMetadata()
	var failure error
	withNote := kgo.PreCommitFnContext(ctx, func(request *kmsg.OffsetCommitRequest) error {
		if err := tour.Check(request.MemberID, memberId, "member of the commit"); err != nil {
			return err
		}
		for t := range request.Topics {
			for p := range request.Topics[t].Partitions {
				request.Topics[t].Partitions[p].Metadata = kmsg.StringPtr(tour.Note)
			}
		}
		return tour.Check(request.Generation, generation, "generation of the commit")
	})
	consumer.CommitOffsetsSync(withNote, offsets,
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
			failure = err
			if err == nil {
				for _, p := range response.Topics[0].Partitions {
					failure = errors.Join(failure, kerr.ErrorForCode(p.ErrorCode))
				}
			}
		})
	if failure != nil {
		return failure
	}
	found, err := admin.FetchOffsets(ctx, group)
	if err != nil {
		return err
	}
	for p, at := range tour.Committed() {
		offset, _ := found.Lookup(topic, p)
		if err := tour.Check(fmt.Sprint(offset.At, offset.Metadata), fmt.Sprint(at, tour.Note), "committed"); err != nil {
			return err
		}
	}
	described, err := admin.DescribeGroups(ctx, group)
	if err != nil {
		return err
	}
	if err := tour.Check(fmt.Sprint(described[group].State, len(described[group].Members)), "Stable1", "group"); err != nil {
		return err
	}
	consumer.Close()
	next := inGroup(group)
	defer next.Close()
	return goesOn(ctx, next, tour.Committed())
}

func groups(ctx context.Context, admin *kadm.Client) error {
	names := []string{topic + "-commit", topic + "-group"}
	described, err := admin.DescribeGroups(ctx, names...)
	if err != nil || described.Error() != nil {
		return errors.Join(err, described.Error())
	}
	consumer := topic + "-consumer"
	next, err := admin.DescribeConsumerGroups(ctx, consumer)
	if err != nil || next.Error() != nil {
		return errors.Join(err, next.Error())
	}
	if err := tour.Check(fmt.Sprint(next[consumer].State, len(next[consumer].Members)), "Empty0", consumer); err != nil {
		return err
	}
	names = append(names, consumer)
	for _, group := range described {
		if err := tour.Check(fmt.Sprint(group.State, len(group.Members)), "Empty0", "group "+group.Group); err != nil {
			return err
		}
	}
	// A killed member may have read what it had not committed.
	lags, err := admin.Lag(ctx, names[1])
	if err != nil || lags.Error() != nil {
		return errors.Join(err, lags.Error())
	}
	if lag := lags[names[1]].Lag.Total(); lag < 0 || lag >= int64(tour.Total) {
		return fmt.Errorf("the lag of %s is %d", names[1], lag)
	}
	moved := kadm.Offsets{}
	moved.AddOffset(topic, 0, 3, -1)
	if err := admin.CommitAllOffsets(ctx, names[0], moved); err != nil {
		return err
	}
	dropped := kadm.TopicsSet{}
	dropped.Add(topic, 1)
	gone, err := admin.DeleteOffsets(ctx, names[0], dropped)
	if err != nil || gone.Error() != nil {
		return errors.Join(err, gone.Error())
	}
	found, err := admin.FetchOffsets(ctx, names[0])
	if err != nil {
		return err
	}
	want := tour.Committed()
	want[0] = 3
	delete(want, 1)
	got := map[int32]int64{}
	found.Each(func(o kadm.OffsetResponse) { got[o.Partition] = o.At })
	if err := tour.Check(got, want, "moved offsets"); err != nil {
		return err
	}
	listed, err := admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	deleted, err := admin.DeleteGroups(ctx, names...)
	if err != nil || deleted.Error() != nil {
		return errors.Join(err, deleted.Error())
	}
	after, err := admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		_, before := listed[name]
		_, still := after[name]
		if err := tour.Check([2]bool{before, still}, [2]bool{true, false}, "listed before and after the deletion"); err != nil {
			return err
		}
	}
	return nil
}

func topicConfigs(ctx context.Context, admin *kadm.Client, want string) error {
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return err
	}
	values := map[string]string{}
	for _, config := range configs[0].Configs {
		values[config.Key] = config.MaybeValue()
	}
	got := values["retention.ms"] + " " + values["max.message.bytes"] + " " + values["cleanup.policy"]
	return tour.Check(got, want, "configs")
}

func alter(ctx context.Context, admin *kadm.Client) error {
	retention, size, policy := tour.RetentionMs, "2000000", "compact"
	altered, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &size},
		{Op: kadm.AppendConfig, Name: "cleanup.policy", Value: &policy},
	}, topic)
	if err != nil || altered[0].Err != nil {
		return errors.Join(err, altered[0].Err)
	}
	if err := topicConfigs(ctx, admin, retention+" 2000000 delete,compact"); err != nil {
		return err
	}
	// The older way replaces them all.
	altered, err = admin.AlterTopicConfigsState(ctx, []kadm.AlterConfig{{Name: "retention.ms", Value: &retention}}, topic)
	if err != nil || altered[0].Err != nil {
		return errors.Join(err, altered[0].Err)
	}
	return topicConfigs(ctx, admin, retention+" 1048588 delete")
}

func partitions(ctx context.Context, admin *kadm.Client) error {
	created, err := admin.UpdatePartitions(ctx, tour.PartitionsMore, topic)
	if err != nil || created.Error() != nil {
		return errors.Join(err, created.Error())
	}
	producer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer producer.Close()
	record := &kgo.Record{Topic: topic, Partition: tour.PartitionsMore - 1, Value: []byte("new")}
	if err := producer.ProduceSync(ctx, record).FirstErr(); err != nil {
		return err
	}
	return tour.Check(record.Offset, int64(0), "a record to a new partition")
}

func records(ctx context.Context, admin *kadm.Client) error {
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, 100, -1)
	offsets.AddOffset(topic, 1, -1, -1)
	deleted, err := admin.DeleteRecords(ctx, offsets)
	if err != nil || deleted.Error() != nil {
		return errors.Join(err, deleted.Error())
	}
	got := map[int32]int64{}
	deleted.Each(func(r kadm.DeleteRecordsResponse) { got[r.Partition] = r.LowWatermark })
	return tour.Check(got, map[int32]int64{0: 100, 1: tour.Ends()[1]}, "low watermarks")
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
	bootstrap, topic = os.Args[1], os.Args[2]
	if bootstrap == "member" {
		bootstrap, topic = os.Args[2], os.Args[3]
		member(os.Args[4], os.Args[5])
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
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
	run.Step("group", func() error { return tour.GroupOfThree(bootstrap, topic, topic+"-group", "classic") })
	run.Step("group consumer", func() error { return tour.GroupOfThree(bootstrap, topic, topic+"-consumer", "consumer") })
	run.Step("commit", func() error { return commit(ctx, admin) })
	run.Step("groups", func() error { return groups(ctx, admin) })
	run.Step("alter", func() error { return alter(ctx, admin) })
	run.Step("partitions", func() error { return partitions(ctx, admin) })
	run.Step("records", func() error { return records(ctx, admin) })
	run.Step("delete", func() error { return remove(ctx, admin) })
	run.Exit()
}
