// The tour with sarama. Arguments: bootstrap address, topic, and the Kafka version that sarama shall speak ("default"
// for its own); as a member of a group: "member", the same, group.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"ottla.test/clients/tour"

	"github.com/IBM/sarama"
)

var (
	bootstrap      []string
	topic, version string
)

func config() *sarama.Config {
	config := sarama.NewConfig()
	if version != "default" {
		version, err := sarama.ParseKafkaVersion(version)
		if err != nil {
			panic(err)
		}
		config.Version = version
	}
	return config
}

func create(admin sarama.ClusterAdmin) error {
	retention := tour.RetentionMs
	detail := &sarama.TopicDetail{
		NumPartitions: tour.Partitions, ReplicationFactor: 1,
		ConfigEntries: map[string]*string{"retention.ms": &retention},
	}
	if err := admin.CreateTopic(topic, detail, true); err != nil {
		return err
	}
	topics, err := admin.ListTopics()
	if err != nil {
		return err
	}
	_, there := topics[topic]
	if err := tour.Check(there, false, "topic after validate only"); err != nil {
		return err
	}
	if err := admin.CreateTopic(topic, detail, false); err != nil {
		return err
	}
	err = admin.CreateTopic(topic, detail, false)
	return tour.Check(errors.Is(err, sarama.ErrTopicAlreadyExists), true, fmt.Sprint("second creation: ", err))
}

// nullable keeps null from empty: sarama writes a nil encoder as null.
func nullable(bytes []byte) sarama.Encoder {
	if bytes == nil {
		return nil
	}
	return sarama.ByteEncoder(bytes)
}

func produce(index int, idempotent bool) error {
	config := config()
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Compression = []sarama.CompressionCodec{
		sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
	}[index]
	if idempotent {
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1
	}
	producer, err := sarama.NewSyncProducer(bootstrap, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	from, to := tour.Numbers(index)
	var messages []*sarama.ProducerMessage
	for n := from; n < to; n++ {
		message := &sarama.ProducerMessage{
			Topic: topic, Partition: tour.Partition(n), Key: nullable(tour.Key(n)), Value: nullable(tour.Value(n)),
			Timestamp: time.UnixMilli(tour.Timestamp(n)),
		}
		for _, header := range tour.Headers(n) {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.Key), Value: header.Value})
		}
		messages = append(messages, message)
	}
	if err := producer.SendMessages(messages); err != nil {
		return err
	}
	for i, message := range messages {
		if err := tour.Check(message.Offset, int64((from+i)/tour.Partitions), "acknowledged offset"); err != nil {
			return err
		}
	}
	return nil
}

func read(from map[int32]int64) (map[int32][]tour.Record, error) {
	consumer, err := sarama.NewConsumer(bootstrap, config())
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	logs := map[int32][]tour.Record{}
	var lock sync.Mutex
	var readers sync.WaitGroup
	var failure error
	for p, end := range tour.Ends() {
		partition, err := consumer.ConsumePartition(topic, p, from[p])
		if err != nil {
			return nil, err
		}
		readers.Go(func() {
			defer partition.Close()
			for next := from[p]; next < end; next++ {
				select {
				case m := <-partition.Messages():
					record := tour.Record{Offset: m.Offset, TimestampMs: m.Timestamp.UnixMilli(), Key: m.Key, Value: m.Value}
					for _, header := range m.Headers {
						record.Headers = append(record.Headers, tour.Header{Key: string(header.Key), Value: header.Value})
					}
					lock.Lock()
					logs[p] = append(logs[p], record)
					lock.Unlock()
				case <-time.After(30 * time.Second):
					lock.Lock()
					failure = fmt.Errorf("partition %d: nothing at offset %d for 30 s", p, next)
					lock.Unlock()
					return
				}
			}
		})
	}
	readers.Wait()
	return logs, failure
}

func consume() error {
	logs, err := read(tour.All(0))
	if err != nil {
		return err
	}
	return tour.Compare(logs)
}

func listed(client sarama.Client, timestamp int64, want map[int32]int64) error {
	got := map[int32]int64{}
	for p := range int32(tour.Partitions) {
		offset, err := client.GetOffset(topic, p, timestamp)
		if err != nil {
			return fmt.Errorf("offset at %d: %w", timestamp, err)
		}
		got[p] = offset
	}
	return tour.Check(got, want, fmt.Sprint("offsets at ", timestamp))
}

func seek(client sarama.Client) error {
	for _, at := range []int64{0, tour.Timestamp(451) - 1, tour.Timestamp(452), tour.Timestamp(tour.Total)} {
		if err := listed(client, at, tour.FirstAt(at)); err != nil {
			return err
		}
	}
	logs, err := read(tour.FirstAt(tour.Timestamp(452)))
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

func describe(admin sarama.ClusterAdmin) error {
	brokers, controller, err := admin.DescribeCluster()
	if err != nil {
		return err
	}
	if len(brokers) == 0 || controller < 0 {
		return fmt.Errorf("cluster: %d brokers, controller %d", len(brokers), controller)
	}
	topics, err := admin.DescribeTopics([]string{topic})
	if err != nil {
		return err
	}
	if err := tour.Check(len(topics[0].Partitions), tour.Partitions, "partitions described"); err != nil {
		return err
	}
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
	if err != nil {
		return err
	}
	values := map[string]string{}
	for _, entry := range entries {
		values[entry.Name] = entry.Value
	}
	if err := tour.Check(values["retention.ms"]+values["cleanup.policy"], tour.RetentionMs+"delete", "configs"); err != nil {
		return err
	}
	for _, broker := range brokers {
		name := fmt.Sprint(broker.ID())
		entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.BrokerResource, Name: name})
		if err != nil || len(entries) == 0 {
			return fmt.Errorf("configs of broker %s: %v", name, err)
		}
	}
	return nil
}

func offsets(client sarama.Client) error {
	if err := listed(client, sarama.OffsetOldest, tour.All(0)); err != nil {
		return err
	}
	return listed(client, sarama.OffsetNewest, tour.Ends())
}

// handler is what a consumer group of sarama wants: it is told of each generation, and of each partition in it.
type handler struct {
	began func(sarama.ConsumerGroupSession) error
	ended func()
	read  func(session sarama.ConsumerGroupSession, message *sarama.ConsumerMessage, isLast bool) // The last one for now.
}

func (h handler) Setup(session sarama.ConsumerGroupSession) error { return h.began(session) }
func (h handler) Cleanup(sarama.ConsumerGroupSession) error       { h.ended(); return nil }
func (h handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, is := <-claim.Messages():
			if !is {
				return nil
			}
			h.read(session, message, len(claim.Messages()) == 0)
		case <-session.Context().Done():
			return nil
		}
	}
}

func inGroup(group string) (sarama.ConsumerGroup, error) {
	config := config()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = tour.Session
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	return sarama.NewConsumerGroup(bootstrap, group, config)
}

func member(group string) error {
	var member tour.Member
	told := member.Told()
	consumer, err := inGroup(group)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-told; cancel() }()
	var partitions []int32
	var lock sync.Mutex // A commit takes the marks of all partitions.
	for ctx.Err() == nil {
		err := consumer.Consume(ctx, []string{topic}, handler{
			began: func(session sarama.ConsumerGroupSession) error {
				partitions = session.Claims()[topic]
				member.Has(partitions, true)
				return nil
			},
			ended: func() { member.Has(partitions, false) },
			read: func(session sarama.ConsumerGroupSession, m *sarama.ConsumerMessage, isLast bool) {
				lock.Lock()
				defer lock.Unlock()
				member.Read(m.Partition, m.Offset)
				session.MarkMessage(m, "")
				if isLast {
					session.Commit() // It may have to wait behind a fetch on the same connection.
				}
			},
		})
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, err)
			time.Sleep(200 * time.Millisecond)
		}
	}
	return consumer.Close()
}

// firstOfEach joins the group, gives the offset of the first record that comes of each partition, and has `done` called
// in the session before it leaves.
func firstOfEach(group string, done func(sarama.ConsumerGroupSession) error) (map[int32]int64, error) {
	consumer, err := inGroup(group)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	seen := map[int32]int64{}
	var lock sync.Mutex
	var failure error
	err = consumer.Consume(ctx, []string{topic}, handler{
		began: func(sarama.ConsumerGroupSession) error { return nil },
		ended: func() {},
		read: func(session sarama.ConsumerGroupSession, m *sarama.ConsumerMessage, _ bool) {
			lock.Lock()
			defer lock.Unlock()
			if _, is := seen[m.Partition]; is || ctx.Err() != nil {
				return
			}
			if seen[m.Partition] = m.Offset; len(seen) == tour.Partitions {
				failure = done(session)
				cancel()
			}
		},
	})
	return seen, errors.Join(err, failure)
}

func coordinated(admin sarama.ClusterAdmin, group, state string, members int) error {
	described, err := admin.DescribeConsumerGroups([]string{group})
	if err != nil {
		return err
	}
	return tour.Check(fmt.Sprint(described[0].Err, described[0].State, len(described[0].Members)),
		fmt.Sprint(sarama.ErrNoError, state, members), "group "+group)
}

func committed(admin sarama.ClusterAdmin, group, note string) (map[int32]int64, error) {
	found, err := admin.ListConsumerGroupOffsets(group, nil)
	if err != nil {
		return nil, err
	}
	got := map[int32]int64{}
	for p, block := range found.Blocks[topic] {
		got[p] = block.Offset
		if block.Metadata != note {
			return nil, fmt.Errorf("the note of partition %d: %q", p, block.Metadata)
		}
	}
	return got, nil
}

func hasCommitted(admin sarama.ClusterAdmin, group string, want map[int32]int64, note string) error {
	got, err := committed(admin, group, note)
	return errors.Join(err, tour.Check(got, want, "offsets of "+group))
}

func commit(admin sarama.ClusterAdmin) error {
	group := topic + "-commit"
	seen, err := firstOfEach(group, func(session sarama.ConsumerGroupSession) error {
		for p, at := range tour.Committed() {
			session.ResetOffset(topic, p, at, tour.Note)
			session.MarkOffset(topic, p, at, tour.Note)
		}
		session.Commit()
		return errors.Join(hasCommitted(admin, group, tour.Committed(), tour.Note), coordinated(admin, group, "Stable", 1))
	})
	if err := errors.Join(err, tour.Check(seen, tour.All(0), "first offsets")); err != nil {
		return err
	}
	seen, err = firstOfEach(group, func(sarama.ConsumerGroupSession) error { return nil })
	return errors.Join(err, tour.Check(seen, tour.Committed(), "offsets to go on from"))
}

func groups(admin sarama.ClusterAdmin) error {
	names := []string{topic + "-commit", topic + "-group"}
	listed, err := admin.ListConsumerGroups()
	if err != nil {
		return err
	}
	offsets, err := committed(admin, names[1], "")
	if err != nil {
		return err
	}
	// A killed member may have read what it had not committed.
	if last := slices.Max(slices.Collect(maps.Values(offsets))); last != tour.Ends()[0] {
		return fmt.Errorf("%s has committed %v", names[1], offsets)
	}
	if err := admin.DeleteConsumerGroupOffset(names[0], topic, 1); err != nil {
		return err
	}
	want := tour.Committed()
	delete(want, 1)
	if err := hasCommitted(admin, names[0], want, tour.Note); err != nil {
		return err
	}
	for _, name := range names {
		if err := tour.Check(listed[name], "consumer", "type of "+name); err != nil {
			return err
		}
		if err := coordinated(admin, name, "Empty", 0); err != nil {
			return err
		}
		if err := admin.DeleteConsumerGroup(name); err != nil {
			return err
		}
	}
	listed, err = admin.ListConsumerGroups()
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, is := listed[name]; is {
			return fmt.Errorf("%s is listed after its deletion", name)
		}
	}
	return nil
}

func topicConfigs(admin sarama.ClusterAdmin, want string) error {
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
	if err != nil {
		return err
	}
	values := map[string]string{}
	for _, entry := range entries {
		values[entry.Name] = entry.Value
	}
	got := values["retention.ms"] + " " + values["max.message.bytes"] + " " + values["cleanup.policy"]
	return tour.Check(got, want, "configs")
}

func alter(admin sarama.ClusterAdmin) error {
	retention, size, policy := tour.RetentionMs, "2000000", "compact"
	err := admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"max.message.bytes": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &size},
		"cleanup.policy":    {Operation: sarama.IncrementalAlterConfigsOperationAppend, Value: &policy},
	}, false)
	if err != nil {
		return err
	}
	if err := topicConfigs(admin, retention+" 2000000 delete,compact"); err != nil {
		return err
	}
	// The older way replaces them all.
	if err := admin.AlterConfig(sarama.TopicResource, topic, map[string]*string{"retention.ms": &retention}, false); err != nil {
		return err
	}
	return topicConfigs(admin, retention+" 1048588 delete")
}

func partitions(admin sarama.ClusterAdmin) error {
	if err := admin.CreatePartitions(topic, tour.PartitionsMore, nil, false); err != nil {
		return err
	}
	config := config()
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	producer, err := sarama.NewSyncProducer(bootstrap, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	_, offset, err := producer.SendMessage(&sarama.ProducerMessage{
		Topic: topic, Partition: tour.PartitionsMore - 1, Value: sarama.StringEncoder("new"),
	})
	return errors.Join(err, tour.Check(offset, int64(0), "a record to a new partition"))
}

func records(admin sarama.ClusterAdmin, client sarama.Client) error {
	if err := admin.DeleteRecords(topic, map[int32]int64{0: 100, 1: -1}); err != nil {
		return err
	}
	for p, want := range map[int32]int64{0: 100, 1: tour.Ends()[1]} {
		first, err := client.GetOffset(topic, p, sarama.OffsetOldest)
		if err := errors.Join(err, tour.Check(first, want, "first offset")); err != nil {
			return err
		}
	}
	return nil
}

func remove(admin sarama.ClusterAdmin) error {
	if err := admin.DeleteTopic(topic); err != nil {
		return err
	}
	topics, err := admin.ListTopics()
	if err != nil {
		return err
	}
	_, there := topics[topic]
	return tour.Check(there, false, "topic after its deletion")
}

func ownVersion() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/IBM/sarama" {
			return module.Version + " (as " + config().Version.String() + ")"
		}
	}
	return "?"
}

func main() {
	arguments := os.Args[1:]
	isMember := arguments[0] == "member"
	if isMember {
		arguments = arguments[1:]
	}
	bootstrap, topic, version = arguments[:1], arguments[1], arguments[2]
	if isMember {
		if err := member(arguments[3]); err != nil {
			panic(err)
		}
		return
	}
	run := tour.Start("sarama", ownVersion())
	admin, err := sarama.NewClusterAdmin(bootstrap, config())
	run.Step("create", func() error {
		if err != nil {
			return err
		}
		return create(admin)
	})
	if err != nil {
		run.Exit()
	}
	client, err := sarama.NewClient(bootstrap, config())
	if err != nil {
		run.Step("connect", func() error { return err })
		run.Exit()
	}
	for index, codec := range tour.Codecs {
		run.Step("produce "+codec, func() error { return produce(index, index%2 == 0) })
	}
	run.Step("consume", consume)
	run.Step("seek", func() error { return seek(client) })
	run.Step("describe", func() error { return describe(admin) })
	run.Step("offsets", func() error { return offsets(client) })
	run.Step("group", func() error { return tour.GroupOfThree(bootstrap[0], topic, version, topic+"-group") })
	run.Step("commit", func() error { return commit(admin) })
	run.Step("groups", func() error { return groups(admin) })
	run.Step("alter", func() error { return alter(admin) })
	run.Step("partitions", func() error { return partitions(admin) })
	run.Step("records", func() error { return records(admin, client) })
	run.Step("delete", func() error { return remove(admin) })
	run.Exit()
}
