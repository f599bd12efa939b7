import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

/** Sends logins with Kafka's own client: Send CLIENT BROKERS TOPIC COUNT. Each login has its own user. */
public final class Send {
  public static void main(String[] arguments) throws Exception {
    if (!arguments[0].equals("kafka-clients")) throw new IllegalArgumentException("unknown client " + arguments[0]);
    Map<String, Object> settings = Map.of("bootstrap.servers", arguments[1]);
    StringSerializer text = new StringSerializer();
    try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings, text, text)) {
      List<Future<RecordMetadata>> sent = new ArrayList<>();
      for (int n = 0; n < Integer.parseInt(arguments[3]); n++) {
        String event = String.format(
            "{\"specversion\":\"1.0\",\"id\":\"e%d\",\"source\":\"urn:producers\","
                + "\"type\":\"foretell.login.succeeded\",\"data\":{\"user_id\":\"user-%d\",\"ip\":\"198.51.100.7\"}}",
            n, n);
        ProducerRecord<String, String> record = new ProducerRecord<>(arguments[2], "default:user-" + n, event);
        byte[] type = "application/cloudevents+json".getBytes(StandardCharsets.UTF_8);
        record.headers().add("content-type", type);
        sent.add(producer.send(record));
      }
      for (Future<RecordMetadata> future : sent) future.get();
    }
  }
}
