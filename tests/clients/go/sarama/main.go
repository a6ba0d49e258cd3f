// The tour with sarama. Arguments: bootstrap address, topic, and the Kafka version that sarama shall
// speak (its own default if there is none).
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"ottla.test/clients/tour"

	"github.com/IBM/sarama"
)

var bootstrap, topic = []string{os.Args[1]}, os.Args[2]

func config() *sarama.Config {
	config := sarama.NewConfig()
	if len(os.Args) > 3 {
		version, err := sarama.ParseKafkaVersion(os.Args[3])
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

func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/IBM/sarama" {
			return module.Version + " (as " + config().Version.String() + ")"
		}
	}
	return "?"
}

func main() {
	run := tour.Start("sarama", version())
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
	run.Step("delete", func() error { return remove(admin) })
	run.Exit()
}
