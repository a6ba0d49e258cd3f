// One worker of the transactional copy with kafka-clients, which uses the second protocol of transactions where the broker
// has it. Arguments, lines and manners are those of worker.py.

import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.Supplier;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.errors.UnsupportedVersionException;

public class Worker {
    static volatile boolean hasToStop = false;
    static KafkaProducer<byte[], byte[]> producer;
    static KafkaConsumer<byte[], byte[]> consumer;
    static String source, sink, id;
    static Random random;

    static synchronized void tell(String text) {
        System.out.println(text.replaceFirst(" |$", String.format(" %.3f ", System.nanoTime() / 1e9)));
        System.out.flush();
    }

    static <T> T retried(Supplier<T> ask) {
        long until = System.nanoTime() + 90_000_000_000L;
        while (true) {
            try {
                return ask.get();
            } catch (TimeoutException e) {
                if (System.nanoTime() > until) throw e;
            }
        }
    }

    static void rewind() {
        var assigned = consumer.assignment();
        if (assigned.isEmpty()) return;
        Map<TopicPartition, OffsetAndMetadata> committed = retried(() -> consumer.committed(assigned));
        for (TopicPartition place : assigned) {
            OffsetAndMetadata found = committed.get(place);
            consumer.seek(place, found == null ? 0 : found.offset());
        }
    }

    static void copy(ConsumerRecords<byte[], byte[]> records) {
        String reason;
        try {
            producer.beginTransaction();
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            byte[] name = (id + " ").getBytes();
            for (ConsumerRecord<byte[], byte[]> record : records) {
                byte[] value = new byte[name.length + record.value().length];
                System.arraycopy(name, 0, value, 0, name.length);
                System.arraycopy(record.value(), 0, value, name.length, record.value().length);
                producer.send(new ProducerRecord<>(sink, record.partition(), null, value));
                offsets.put(new TopicPartition(source, record.partition()), new OffsetAndMetadata(record.offset() + 1));
            }
            retried(() -> { producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata()); return null; });
            if (random.nextInt(10) > 0) {
                retried(() -> { producer.commitTransaction(); return null; });
                tell("committed " + records.count());
                return;
            }
            producer.flush();
            reason = "will";
        } catch (ProducerFencedException | AuthorizationException | UnsupportedVersionException
                | FencedInstanceIdException e) {
            throw e;
        } catch (KafkaException e) {
            reason = e.getClass().getSimpleName();
        }
        retried(() -> { producer.abortTransaction(); return null; });
        tell("aborted " + records.count() + " " + reason);
        rewind();
    }

    static void work() {
        consumer.subscribe(List.of(source));
        while (!hasToStop) {
            ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
            if (records.count() > 0) copy(records);
        }
        consumer.close();
        producer.close();
    }

    public static void main(String[] args) throws Exception {
        source = args[2];
        sink = args[3];
        id = args[4];
        random = new Random(args[6].hashCode());
        Thread main = Thread.currentThread();
        int[] code = {0};
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            hasToStop = true;
            try {
                main.join(60_000);
            } catch (InterruptedException e) {
                return;
            }
            Runtime.getRuntime().halt(code[0]);
        }));
        var bytes = "org.apache.kafka.common.serialization.ByteArray";
        Map<String, Object> common = Map.of("bootstrap.servers", args[0], "reconnect.backoff.max.ms", 500,
                "metadata.recovery.strategy", "none");
        Map<String, Object> settings = new HashMap<>(common);
        settings.putAll(Map.of("transactional.id", id, "transaction.timeout.ms", Integer.parseInt(args[5]),
                "key.serializer", bytes + "Serializer", "value.serializer", bytes + "Serializer",
                "linger.ms", 2, "max.block.ms", 30_000));
        producer = new KafkaProducer<>(settings);
        settings = new HashMap<>(common);
        settings.putAll(Map.of("group.id", args[1], "auto.offset.reset", "earliest", "enable.auto.commit", false,
                "isolation.level", "read_committed", "session.timeout.ms", 6000, "heartbeat.interval.ms", 1000,
                "max.poll.records", 1 + random.nextInt(200),
                "key.deserializer", bytes + "Deserializer", "value.deserializer", bytes + "Deserializer"));
        consumer = new KafkaConsumer<>(settings);
        try {
            retried(() -> { producer.initTransactions(); return null; });
            tell("ready");
            work();
        } catch (KafkaException e) {
            tell("gave_up " + e.getClass().getSimpleName());
            code[0] = 3;
        }
        new Thread(() -> System.exit(code[0])).start();
    }
}
