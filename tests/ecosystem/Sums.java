// A topology with state that must be exact: it takes the records "P N ..." of tests/soak/producer.py, gives them another
// key (by which they go through a repartition topic), keeps how many of each key there were and the sum of their N, and
// counts them in windows of their own time. Each record in makes one record out of both. Arguments: bootstrap address,
// directory for its state, keys, milliseconds from one N to the next, those of a window, the time of N = 0.

import java.time.Duration;
import java.util.Map;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;

class Sums {
    static long number(Object value) {
        return Long.parseLong(value.toString().split(" ", 3)[1]);
    }

    public static void main(String[] args) {
        long keys = Long.parseLong(args[2]), step = Long.parseLong(args[3]), window = Long.parseLong(args[4]);
        long start = Long.parseLong(args[5]);
        var strings = Produced.with(Serdes.String(), Serdes.String());
        var builder = new StreamsBuilder();
        var grouped = builder.stream("events", Consumed.with(Serdes.ByteArray(), Serdes.String())
                        .withTimestampExtractor((record, before) -> start + number(record.value()) * step))
                .map((key, value) -> {
                    long p = Long.parseLong(value.split(" ", 2)[0]);
                    return KeyValue.pair("key-" + (7 * p + number(value)) % keys, value);
                })
                .groupByKey(Grouped.with("by-key", Serdes.String(), Serdes.String()));
        grouped.aggregate(() -> "0 0", (key, value, sum) -> {
                    String[] words = sum.split(" ");
                    return (Long.parseLong(words[0]) + 1) + " " + (Long.parseLong(words[1]) + number(value));
                }, Materialized.<String, String, org.apache.kafka.streams.state.KeyValueStore<
                        org.apache.kafka.common.utils.Bytes, byte[]>>as("sums")
                        .withKeySerde(Serdes.String()).withValueSerde(Serdes.String()).withCachingDisabled())
                .toStream()
                .to("sums-out", strings);
        grouped.windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMillis(window), Duration.ofHours(1)))
                .count(Materialized.<String, Long, org.apache.kafka.streams.state.WindowStore<
                        org.apache.kafka.common.utils.Bytes, byte[]>>as("windows").withCachingDisabled())
                .toStream()
                .map((key, count) -> KeyValue.pair(key.key() + "@" + (key.window().start() - start), "" + count))
                .to("windows-out", strings);
        var settings = App.settings(args[0], "sums", args[1]);
        settings.putAll(Map.of("processing.guarantee", "exactly_once_v2", "commit.interval.ms", 200,
                "num.standby.replicas", 1,
                // Segments of changelogs that are rolled and compacted within a trial.
                "topic.segment.ms", 5000, "topic.min.cleanable.dirty.ratio", "0.01"));
        App.run(builder.build(), settings);
    }
}
