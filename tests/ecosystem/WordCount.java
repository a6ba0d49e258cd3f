// The word count of Kafka Streams. Arguments: bootstrap address, directory for its state.

import java.util.List;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

class WordCount {
    public static void main(String[] args) {
        var builder = new StreamsBuilder();
        builder.stream("lines", Consumed.with(Serdes.ByteArray(), Serdes.String()))
                .flatMapValues(line -> List.of(line.toLowerCase().split("\\W+")))
                .groupBy((key, word) -> word, Grouped.with(Serdes.String(), Serdes.String()))
                .count(Materialized.as("counts"))
                .toStream()
                .to("counted", Produced.with(Serdes.String(), Serdes.Long()));
        var settings = App.settings(args[0], "word-count", args[1]);
        settings.put("commit.interval.ms", 1000);
        App.run(builder.build(), settings);
    }
}
