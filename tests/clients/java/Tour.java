import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.function.LongFunction;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.message.ResponseHeaderData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/**
 * The tour with Kafka's own clients, by the rules of python/tour.py. Arguments: bootstrap address, topic; as a member of
 * a group: `member`, bootstrap address, topic, group, and an assignor of the client or, for the consumer protocol, of the broker.
 */
public final class Tour {
    static final int PARTITIONS = 6;
    static final int PER_CODEC = 300;
    static final long BASE_MS = 1_700_000_000_000L;
    static final String RETENTION_MS = "9000000000000";
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    static final int TOTAL = CODECS.size() * PER_CODEC;
    static final int PARTITIONS_MORE = 8;
    static final int SESSION_MS = 6000;
    static final String RANGE = RangeAssignor.class.getName();
    static final Set<String> SERVER_ASSIGNORS = Set.of("uniform", "range");
    static final String NOTE = "a note \u2713"; // The metadata of committed offsets.

    final String bootstrap;
    final String topic;
    final Admin admin;
    final List<TopicPartition> partitions;
    boolean failed;

    Tour(String bootstrap, String topic) {
        this.bootstrap = bootstrap;
        this.topic = topic;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        this.partitions = IntStream.range(0, PARTITIONS).mapToObj(p -> new TopicPartition(topic, p)).toList();
    }

    /** Everything of a record that must come back; fields are compared as text, so that null is not empty. */
    record Row(long offset, long timestampMs, String key, String value, List<String> headers) { }

    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    static String key(int n) {
        return n % 7 == 0 ? null : "key-" + n % 97;
    }

    static String value(int n) {
        if (n % 5 == 0 && n % 7 != 0) {
            return null;
        }
        return n % 11 == 0 ? "" : "value " + n + " " + "abcdefgh".repeat(n % 50);
    }

    static List<Header> headers(int n) {
        List<Header> both = List.of(new RecordHeader("number", bytes("" + n)), new RecordHeader("nothing", new byte[0]));
        return both.subList(0, n % 3);
    }

    static List<String> flat(Iterable<Header> headers) {
        List<String> flat = new ArrayList<>();
        headers.forEach(h -> flat.add(h.key() + "=" + text(h.value())));
        return flat;
    }

    static long timestamp(int n) {
        return BASE_MS + n * 1000L;
    }

    static Map<Integer, List<Row>> expected() {
        Map<Integer, List<Row>> logs = new TreeMap<>();
        for (int n = 0; n < TOTAL; n++) {
            List<Row> log = logs.computeIfAbsent(n % PARTITIONS, p -> new ArrayList<>());
            log.add(new Row(log.size(), timestamp(n), key(n), value(n), flat(headers(n))));
        }
        return logs;
    }

    /** Per partition the first record that is not older, -1 for none. */
    static Map<Integer, Long> firstAt(long timestampMs) {
        Map<Integer, Long> offsets = new TreeMap<>();
        expected().forEach((p, log) -> offsets.put(p, log.stream()
            .filter(row -> row.timestampMs >= timestampMs).map(Row::offset).findFirst().orElse(-1L)));
        return offsets;
    }

    static Map<Integer, Long> ends(long less) {
        Map<Integer, Long> offsets = new TreeMap<>();
        expected().forEach((p, log) -> offsets.put(p, log.size() - less));
        return offsets;
    }

    static Map<Integer, Long> all(long offset) {
        return IntStream.range(0, PARTITIONS).boxed().collect(Collectors.toMap(p -> p, p -> offset));
    }

    static void check(Object got, Object want, String what) {
        if (!Objects.equals(got, want)) {
            throw new AssertionError(String.format("%s: got %.300s, want %.300s", what, got, want));
        }
    }

    void create() throws Exception {
        NewTopic wanted = new NewTopic(topic, Optional.of(PARTITIONS), Optional.empty());
        wanted.configs(Map.of("retention.ms", RETENTION_MS));
        admin.createTopics(List.of(wanted), new CreateTopicsOptions().validateOnly(true)).all().get();
        check(admin.listTopics().names().get().contains(topic), false, "topic after validateOnly");
        var created = admin.createTopics(List.of(wanted));
        created.all().get();
        check(created.numPartitions(topic).get(), PARTITIONS, "partitions created");
        check(created.replicationFactor(topic).get(), 1, "replication factor created");
        check(created.config(topic).get().get("retention.ms").value(), RETENTION_MS, "retention.ms created");
        try {
            admin.createTopics(List.of(wanted)).all().get();
            throw new AssertionError("a second creation was accepted");
        } catch (ExecutionException e) {
            check(e.getCause().getClass(), TopicExistsException.class, "second creation");
        }
    }

    /** With the producer's own defaults: acks=all, idempotent, five requests in flight. */
    void produce(int codec) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "compression.type", CODECS.get(codec));
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int n = codec * PER_CODEC; n < (codec + 1) * PER_CODEC; n++) {
                sent.add(producer.send(new ProducerRecord<>(
                    topic, n % PARTITIONS, timestamp(n), bytes(key(n)), bytes(value(n)), headers(n))));
            }
            for (int i = 0; i < sent.size(); i++) {
                long want = (codec * PER_CODEC + i) / PARTITIONS;
                check(sent.get(i).get().offset(), want, "acknowledged offset");
            }
        }
    }

    KafkaConsumer<byte[], byte[]> consumer(IsolationLevel level) {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "enable.auto.commit", false,
            "auto.offset.reset", "earliest", "isolation.level", level.toString());
        var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.assign(partitions);
        return consumer;
    }

    void consume(IsolationLevel level) {
        try (var consumer = consumer(level)) {
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            Map<Integer, List<Row>> logs = new TreeMap<>();
            long deadline = System.nanoTime() + 60_000_000_000L;
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p)) && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofSeconds(1))) {
                    logs.computeIfAbsent(r.partition(), p -> new ArrayList<>())
                        .add(new Row(r.offset(), r.timestamp(), text(r.key()), text(r.value()), flat(r.headers())));
                }
            }
            expected().forEach((p, log) -> {
                List<Row> have = logs.getOrDefault(p, List.of());
                for (int i = 0; i < Math.min(log.size(), have.size()); i++) {
                    check(have.get(i), log.get(i), "partition " + p + " offset " + i);
                }
                check(have.size(), log.size(), "records of partition " + p);
            });
        }
    }

    <V> Map<TopicPartition, V> each(LongFunction<V> value) {
        return partitions.stream().collect(Collectors.toMap(p -> p, p -> value.apply(p.partition())));
    }

    void seek() {
        try (var consumer = consumer(IsolationLevel.READ_UNCOMMITTED)) {
            Map<TopicPartition, OffsetAndTimestamp> found = Map.of();
            for (long at : new long[] {0, timestamp(451) - 1, timestamp(TOTAL), timestamp(452)}) {
                found = consumer.offsetsForTimes(each(p -> at));
                Map<Integer, Long> offsets = new TreeMap<>();
                found.forEach((p, f) -> offsets.put(p.partition(), f == null ? -1L : f.offset()));
                check(offsets, firstAt(at), "offsets at " + at);
            }
            found.forEach((p, f) -> consumer.seek(p, f.offset()));
            Map<TopicPartition, Long> seen = new HashMap<>();
            long deadline = System.nanoTime() + 30_000_000_000L;
            while (seen.size() < PARTITIONS && System.nanoTime() < deadline) {
                var records = consumer.poll(Duration.ofSeconds(1));
                records.partitions().forEach(p -> seen.putIfAbsent(p, records.records(p).get(0).timestamp()));
            }
            Map<TopicPartition, Long> want = new HashMap<>();
            found.forEach((p, f) -> want.put(p, f.timestamp()));
            check(seen, want, "first after the seek");
        }
    }

    void describe() throws Exception {
        var cluster = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
        Collection<Node> nodes = cluster.nodes().get();
        check(nodes.contains(cluster.controller().get()), true, "controller");
        check(cluster.clusterId().get().isEmpty(), false, "cluster id is empty");
        check(cluster.authorizedOperations().get().isEmpty(), false, "no operation on the cluster is authorized");
        var options = new DescribeTopicsOptions().includeAuthorizedOperations(true).partitionSizeLimitPerResponse(4);
        TopicDescription described = admin.describeTopics(List.of(topic), options).allTopicNames().get().get(topic);
        check(described.partitions().size(), PARTITIONS, "partitions described");
        check(described.partitions().stream().allMatch(p -> nodes.contains(p.leader()) && p.isr().size() == 1), true, "leaders");
        check(described.authorizedOperations().isEmpty(), false, "no operation on the topic is authorized");
        var byId = admin.describeTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(described.topicId())));
        check(byId.allTopicIds().get().get(described.topicId()).name(), topic, "name of the topic id");
        try {
            admin.describeTopics(List.of(topic + "-missing")).allTopicNames().get();
            throw new AssertionError("a missing topic was described");
        } catch (ExecutionException e) {
            check(e.getCause().getClass(), UnknownTopicOrPartitionException.class, "missing topic");
        }
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        List<ConfigResource> resources = new ArrayList<>(List.of(resource));
        nodes.forEach(n -> resources.add(new ConfigResource(ConfigResource.Type.BROKER, n.idString())));
        var all = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        Map<ConfigResource, Config> configs = admin.describeConfigs(resources, all).all().get();
        Config config = configs.get(resource);
        check(config.get("retention.ms").value(), RETENTION_MS, "retention.ms");
        check(config.get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "source of retention.ms");
        check(config.get("retention.ms").type(), ConfigEntry.ConfigType.LONG, "type of retention.ms");
        check(config.get("cleanup.policy").value(), "delete", "cleanup.policy");
        check(config.get("cleanup.policy").source(), ConfigEntry.ConfigSource.DEFAULT_CONFIG, "source of cleanup.policy");
        resources.stream().skip(1).forEach(r -> check(configs.get(r).get("num.partitions") != null, true, "configs of " + r));
        var features = admin.describeFeatures().featureMetadata().get();
        check(features.finalizedFeatures().containsKey("metadata.version"), true, "metadata.version");
    }

    void offsets() throws Exception {
        Map<OffsetSpec, Map<Integer, Long>> asks = new HashMap<>();
        asks.put(OffsetSpec.earliest(), all(0));
        asks.put(OffsetSpec.latest(), ends(0));
        asks.put(OffsetSpec.maxTimestamp(), ends(1));
        asks.put(OffsetSpec.earliestLocal(), all(0));
        asks.put(OffsetSpec.latestTiered(), all(-1));
        asks.put(OffsetSpec.forTimestamp(timestamp(452)), firstAt(timestamp(452)));
        asks.put(OffsetSpec.forTimestamp(timestamp(TOTAL)), all(-1));
        for (var ask : asks.entrySet()) {
            for (IsolationLevel level : IsolationLevel.values()) {
                var found = admin.listOffsets(each(p -> ask.getKey()), new ListOffsetsOptions(level)).all().get();
                Map<Integer, Long> offsets = new TreeMap<>();
                found.forEach((p, f) -> offsets.put(p.partition(), f.offset()));
                check(offsets, ask.getValue(), ask.getKey().getClass().getSimpleName());
            }
        }
    }

    /** A member of the classic protocol with the name of an assignor's class, else of the consumer protocol. */
    KafkaConsumer<byte[], byte[]> inGroup(String group, String assignor) {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "group.id", group,
            "enable.auto.commit", false, "auto.offset.reset", "earliest"));
        if (SERVER_ASSIGNORS.contains(assignor)) {
            // Its timeouts are the broker's.
            settings.putAll(Map.of("group.protocol", "consumer", "group.remote.assignor", assignor));
        } else {
            settings.putAll(Map.of("group.protocol", "classic", "session.timeout.ms", SESSION_MS,
                "heartbeat.interval.ms", 500, "partition.assignment.strategy", assignor));
        }
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** One member of group.sh. */
    void member(String group, String assignor) throws Exception {
        var consumer = inGroup(group, assignor);
        var main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                main.join(10_000);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
            Runtime.getRuntime().halt(main.isAlive() ? 1 : 0); // Else SIGTERM would be the exit code.
        }));
        consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
            private final TreeSet<Integer> assigned = new TreeSet<>();

            private void print() {
                var all = assigned.stream().map(String::valueOf).collect(Collectors.joining(","));
                System.out.printf("assigned\t%s%n", all);
            }

            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> more) {
                more.forEach(p -> assigned.add(p.partition()));
                print();
            }

            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> less) {
                less.forEach(p -> assigned.remove(p.partition()));
                print();
            }
        });
        try (consumer) {
            while (true) {
                for (var r : consumer.poll(Duration.ofMillis(200))) {
                    System.out.printf("read\t%d\t%d%n", r.partition(), r.offset());
                }
                try {
                    consumer.commitSync();
                } catch (CommitFailedException | RebalanceInProgressException e) {
                    System.err.println(e); // With the next ones, or another member reads them again.
                }
            }
        } catch (WakeupException e) {
            // It is told to leave.
        }
    }

    /** group.sh with this program as the member. GROUP_SH: where it is. */
    void group(String kind, String assignor) throws Exception {
        var process = new ProcessBuilder(System.getenv("GROUP_SH"), "" + TOTAL, "java", "-XX:TieredStopAtLevel=1", "-cp",
            System.getProperty("java.class.path"), "Tour", "member", bootstrap, topic, topic + "-" + kind, assignor);
        var started = process.redirectErrorStream(true).start();
        check(new String(started.getInputStream().readAllBytes()), "", "group.sh");
        check(started.waitFor(), 0, "exit code of group.sh");
    }

    static Map<Integer, Long> committed() {
        return IntStream.range(0, PARTITIONS).boxed().collect(Collectors.toMap(p -> p, p -> 10L * (p + 1)));
    }

    static Map<Integer, Long> firstOfEach(KafkaConsumer<byte[], byte[]> consumer) {
        Map<Integer, Long> seen = new TreeMap<>();
        long deadline = System.nanoTime() + 30_000_000_000L;
        while (seen.size() < PARTITIONS && System.nanoTime() < deadline) {
            consumer.poll(Duration.ofSeconds(1)).forEach(r -> seen.putIfAbsent(r.partition(), r.offset()));
        }
        return seen;
    }

    static Map<Integer, Long> offsetsOf(Map<TopicPartition, OffsetAndMetadata> committed) {
        Map<Integer, Long> offsets = new TreeMap<>();
        committed.forEach((p, c) -> offsets.put(p.partition(), c.offset()));
        return offsets;
    }

    void commit() throws Exception {
        String group = topic + "-commit";
        try (var consumer = inGroup(group, RANGE)) {
            consumer.subscribe(List.of(topic));
            check(firstOfEach(consumer), all(0), "first offsets");
            consumer.commitSync(each(p -> new OffsetAndMetadata(10 * (p + 1), NOTE)));
            var found = consumer.committed(new HashSet<>(partitions));
            check(offsetsOf(found), committed(), "committed");
            check(found.values().stream().allMatch(c -> c.metadata().equals(NOTE)), true, "notes");
            var described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            check(described.groupState(), GroupState.STABLE, "state of the group");
            check(described.members().size(), 1, "members");
            check(described.members().iterator().next().assignment().topicPartitions().size(), PARTITIONS, "its partitions");
        }
        try (var consumer = inGroup(group, RANGE)) {
            consumer.subscribe(List.of(topic));
            check(firstOfEach(consumer), committed(), "offsets to go on from");
        }
    }

    /** Polls until each of the members has as many partitions. */
    void share(List<KafkaConsumer<byte[], byte[]>> members, int count) {
        long deadline = System.nanoTime() + 30_000_000_000L;
        while (!members.stream().allMatch(member -> member.assignment().size() == count)) {
            check(System.nanoTime() < deadline, true, "partitions are shared: "
                + members.stream().map(member -> member.assignment().size()).toList());
            members.forEach(member -> member.poll(Duration.ofMillis(50)));
        }
    }

    /**
     * A classic group that a member of the consumer protocol joins, by a pattern and with an assignor of the broker; then
     * its only member; then a classic one again, and the group is what it was.
     */
    void migrate() throws Exception {
        String group = topic + "-migrate";
        var classic = inGroup(group, RANGE);
        classic.subscribe(List.of(topic));
        share(List.of(classic), PARTITIONS);
        check(describe(group).type(), GroupType.CLASSIC, "type of the group");
        try (var next = inGroup(group, "range")) {
            next.subscribe(new SubscriptionPattern(topic.substring(0, topic.length() - 1) + "[^-]"));
            share(List.of(classic, next), PARTITIONS / 2);
            next.commitSync();
            classic.commitSync();
            var described = describe(group);
            check(described.type(), GroupType.CONSUMER, "type of the group");
            check(described.partitionAssignor(), "range", "assignor");
            check(described.members().size(), 2, "members");
            check(described.members().stream().allMatch(m -> m.memberEpoch().get() > 0
                && m.targetAssignment().get().topicPartitions().size() == PARTITIONS / 2), true, "targets");
            check(described.members().stream().filter(m -> m.upgraded().get()).count(), 1L, "members that are upgraded");
            classic.close();
            share(List.of(next), PARTITIONS);
            next.commitSync();
            classic = inGroup(group, RANGE);
            classic.subscribe(List.of(topic));
            share(List.of(classic, next), PARTITIONS / 2);
        }
        share(List.of(classic), PARTITIONS);
        check(describe(group).type(), GroupType.CLASSIC, "type of the group");
        classic.close();
    }

    ConsumerGroupDescription describe(String group) throws Exception {
        return admin.describeConsumerGroups(List.of(group)).all().get().get(group);
    }

    List<String> groupIds() throws Exception {
        return admin.listGroups().all().get().stream().map(GroupListing::groupId).toList();
    }

    Map<Integer, Long> committedBy(String group) throws Exception {
        return offsetsOf(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get());
    }

    void groups() throws Exception {
        List<String> names = List.of(topic + "-commit", topic + "-eager", topic + "-cooperative", topic + "-consumer");
        check(groupIds().containsAll(names), true, "groups listed");
        for (var described : admin.describeConsumerGroups(names).all().get().values()) {
            check(described.groupState(), GroupState.EMPTY, "state of " + described.groupId());
        }
        for (String name : names.subList(1, names.size())) {
            // A killed member may have read what it had not committed.
            check(Collections.max(committedBy(name).values()), ends(0).get(0), "greatest offset of " + name);
        }
        admin.alterConsumerGroupOffsets(names.get(0), Map.of(partitions.get(0), new OffsetAndMetadata(3))).all().get();
        admin.deleteConsumerGroupOffsets(names.get(0), Set.of(partitions.get(1))).all().get();
        var want = new TreeMap<>(committed());
        want.put(0, 3L);
        want.remove(1);
        check(committedBy(names.get(0)), want, "moved offsets");
        admin.deleteConsumerGroups(names).all().get();
        check(groupIds().stream().anyMatch(names::contains), false, "groups after their deletion");
        try {
            admin.describeConsumerGroups(List.of(names.get(0))).all().get();
            throw new AssertionError("a deleted group was described");
        } catch (ExecutionException e) {
            check(e.getCause().getClass(), GroupIdNotFoundException.class, "deleted group");
        }
    }

    void alter() throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("max.message.bytes", "2000000"), AlterConfigOp.OpType.SET),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND)))).all().get();
        Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        check(config.get("max.message.bytes").value(), "2000000", "max.message.bytes");
        check(config.get("cleanup.policy").value(), "delete,compact", "cleanup.policy");
        admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("max.message.bytes", null), AlterConfigOp.OpType.DELETE),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.SUBTRACT)))).all().get();
        config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        check(config.get("max.message.bytes").isDefault(), true, "max.message.bytes is a default");
        check(config.get("cleanup.policy").value(), "delete", "cleanup.policy");
        check(config.get("retention.ms").value(), RETENTION_MS, "retention.ms");
        try {
            var nonsense = new AlterConfigOp(new ConfigEntry("retention.ms", "soon"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(nonsense))).all().get();
            throw new AssertionError("nonsense was accepted");
        } catch (ExecutionException e) {
            check(e.getCause().getClass(), InvalidConfigurationException.class, "nonsense");
        }
        check(admin.listConfigResources().all().get().contains(resource), true, "config resources");
    }

    void partitions() throws Exception {
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(PARTITIONS_MORE))).all().get();
        var described = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        check(described.partitions().size(), PARTITIONS_MORE, "partitions described");
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap);
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            var sent = producer.send(new ProducerRecord<>(topic, PARTITIONS_MORE - 1, null, bytes("new")));
            check(sent.get().offset(), 0L, "a record to a new partition");
        }
        var nodes = admin.describeCluster().nodes().get().stream().map(Node::id).toList();
        long replicas = admin.describeLogDirs(nodes).allDescriptions().get().values().stream()
            .flatMap(dirs -> dirs.values().stream()).flatMap(dir -> dir.replicaInfos().keySet().stream())
            .filter(p -> p.topic().equals(topic)).count();
        check(replicas, (long) PARTITIONS_MORE, "replicas in the log directories");
    }

    void records() throws Exception {
        var before = Map.of(partitions.get(0), RecordsToDelete.beforeOffset(100), partitions.get(1), RecordsToDelete.beforeOffset(-1));
        var deleted = admin.deleteRecords(before).lowWatermarks();
        check(deleted.get(partitions.get(0)).get().lowWatermark(), 100L, "low watermark");
        check(deleted.get(partitions.get(1)).get().lowWatermark(), ends(0).get(1), "low watermark");
        var first = admin.listOffsets(Map.of(partitions.get(0), OffsetSpec.earliest())).all().get();
        check(first.get(partitions.get(0)).offset(), 100L, "first offset");
    }

    void delete() throws Exception {
        admin.deleteTopics(List.of(topic)).all().get();
        check(admin.listTopics().names().get().contains(topic), false, "topic after its deletion");
    }

    /** Golden frames that kafka-python's codec does not know, decoded and encoded again, byte for byte. */
    void golden() throws Exception {
        var dir = Path.of(System.getenv("GROUP_SH")).resolveSibling("../golden");
        for (var key : List.of(ApiKeys.CONSUMER_GROUP_HEARTBEAT, ApiKeys.CONSUMER_GROUP_DESCRIBE)) {
            var lines = Files.readAllLines(dir.resolve(key.name + ".hex"));
            check(lines.size(), 2 * (key.latestVersion() + 1), "golden frames of " + key.name);
            for (String line : lines) {
                var words = line.split(" ");
                short version = Short.parseShort(words[1]);
                boolean isRequest = words[0].equals("request");
                var bytes = ByteBuffer.wrap(HexFormat.of().parseHex(words[2]), 4, words[2].length() / 2 - 4);
                var in = new ByteBufferAccessor(bytes);
                if (isRequest) {
                    var header = new RequestHeaderData(in, key.requestHeaderVersion(version));
                    check(header.requestApiKey() + " " + header.requestApiVersion(), key.id + " " + version, line);
                } else {
                    check(new ResponseHeaderData(in, key.responseHeaderVersion(version)).correlationId(), 0x01020300 + version, line);
                }
                var rest = bytes.slice();
                var message = isRequest ? key.messageType.newRequest() : key.messageType.newResponse();
                message.read(in, version);
                check(bytes.remaining(), 0, "bytes behind " + line);
                check(MessageUtil.toByteBufferAccessor(message, version).buffer(), rest, line);
            }
        }
    }

    interface Step {
        void run() throws Exception;
    }

    void step(String name, Step step) {
        try {
            step.run();
            System.out.printf("step\t%s\tok%n", name);
        } catch (Throwable e) {
            failed = true;
            e.printStackTrace();
            System.out.printf("step\t%s\tfailed\t%s%n", name, e.toString().replace('\n', ' '));
        }
    }

    public static void main(String[] args) throws Exception {
        if (args[0].equals("member")) {
            new Tour(args[1], args[2]).member(args[3], args[4]);
            return;
        }
        System.out.printf("client\tJava kafka-clients\t%s%n", AppInfoParser.getVersion());
        Tour tour = new Tour(args[0], args[1]);
        tour.step("golden", tour::golden);
        tour.step("create", tour::create);
        for (int codec = 0; codec < CODECS.size(); codec++) {
            int index = codec;
            tour.step("produce " + CODECS.get(codec), () -> tour.produce(index));
        }
        tour.step("consume", () -> {
            tour.consume(IsolationLevel.READ_UNCOMMITTED);
            tour.consume(IsolationLevel.READ_COMMITTED);
        });
        tour.step("seek", tour::seek);
        tour.step("describe", tour::describe);
        tour.step("offsets", tour::offsets);
        tour.step("group eager", () -> tour.group("eager", RANGE));
        tour.step("group cooperative", () -> tour.group("cooperative", CooperativeStickyAssignor.class.getName()));
        tour.step("group consumer", () -> tour.group("consumer", "uniform"));
        tour.step("commit", tour::commit);
        tour.step("migrate", tour::migrate);
        tour.step("groups", tour::groups);
        tour.step("alter", tour::alter);
        tour.step("partitions", tour::partitions);
        tour.step("records", tour::records);
        tour.step("delete", tour::delete);
        tour.admin.close();
        System.exit(tour.failed ? 1 : 0);
    }
}
