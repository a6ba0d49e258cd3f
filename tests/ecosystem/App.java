// A program of Kafka Streams as a process of a trial. It tells, a line each, with the time:
//
//   ready TIME         it runs and has its share of the partitions; whenever that is so again
//   died TIME NAME     a thread of it ended with an exception and is replaced
//
// SIGTERM: it closes in order and exits with 0.

import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;

class App {
    static synchronized void tell(String kind, String text) {
        System.out.printf("%s %.3f %s%n", kind, System.nanoTime() / 1e9, text);
        System.out.flush();
    }

    static Properties settings(String bootstrap, String id, String stateDirectory) {
        var settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, id);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, stateDirectory);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put("auto.offset.reset", "earliest");
        settings.put("reconnect.backoff.max.ms", 500);
        settings.put("session.timeout.ms", 6000);
        settings.put("heartbeat.interval.ms", 1000);
        // Two seconds instead of thirty, so that records of repartition topics are deleted within a trial.
        settings.put("repartition.purge.interval.ms", 2000);
        return settings;
    }

    static void run(Topology topology, Properties settings) {
        var streams = new KafkaStreams(topology, settings);
        streams.setUncaughtExceptionHandler(e -> {
            Throwable cause = e;
            while (cause.getCause() != null) cause = cause.getCause();
            tell("died", (cause.getClass().getSimpleName() + " " + cause.getMessage()).replaceAll("\\s+", " "));
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) tell("ready", "");
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() ->
                Runtime.getRuntime().halt(streams.close(Duration.ofSeconds(60)) ? 0 : 4)));
        streams.start();
    }
}
