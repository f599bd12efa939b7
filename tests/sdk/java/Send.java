import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.http.HttpMessageFactory;
import io.cloudevents.jackson.JsonFormat;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.List;

/**
 * Sends events with the CloudEvents SDK for Java: binary, structured, structured with bytes, batch.
 *
 * <p>The SDK does not encode header values, so its callers must (HTTP binding, 3.1.3.2), as this program does. It does
 * not write batches; a JSON list of its events is one.
 */
public final class Send {
  private static final ObjectMapper MAPPER = new ObjectMapper();
  private static final HttpClient CLIENT =
      HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
  private static final byte[] DATA =
      "{\"user_id\":\"sdk\",\"ip\":\"198.51.100.7\"}".getBytes(StandardCharsets.UTF_8);

  private static URI events;

  private static CloudEvent event(JsonNode of) {
    return CloudEventBuilder.v1()
        .withId(of.get("id").textValue())
        .withSource(URI.create("https://sdk.example.com/logins"))
        .withType("foretell.login.succeeded")
        .withTime(OffsetDateTime.parse("2025-03-01T10:00:00Z"))
        .withExtension("partner", of.get("partner").textValue())
        .withData("application/json", DATA)
        .build();
  }

  private static String encoded(String value) {
    StringBuilder text = new StringBuilder();
    for (byte b : value.getBytes(StandardCharsets.UTF_8)) {
      if (b > ' ' && b < 0x7f && b != '"' && b != '%') {
        text.append((char) b);
      } else {
        text.append(String.format("%%%02X", b));
      }
    }
    return text.toString();
  }

  private static void send(HttpRequest.Builder request, byte[] body, List<String> ids) throws Exception {
    var answer = CLIENT.send(request.POST(BodyPublishers.ofByteArray(body)).build(), BodyHandlers.ofString());
    if (answer.statusCode() >= 300) {
      throw new IllegalStateException(ids + ": " + answer.statusCode() + " " + answer.body());
    }
    List<String> found = new ArrayList<>();
    MAPPER.readTree(answer.body()).get("positions").forEach(position -> found.add(position.get("id").textValue()));
    if (!found.equals(ids)) {
      throw new IllegalStateException("sent " + ids + ", was read as " + found);
    }
  }

  private static void binary(CloudEvent event) throws Exception {
    HttpRequest.Builder request = HttpRequest.newBuilder(events);
    ByteArrayOutputStream body = new ByteArrayOutputStream();
    HttpMessageFactory.createWriter(
            (name, value) -> request.header(name, name.startsWith("ce-") ? encoded(value) : value),
            body::writeBytes)
        .writeBinary(event);
    send(request, body.toByteArray(), List.of(event.getId()));
  }

  private static void structured(CloudEvent event, JsonFormat format) throws Exception {
    HttpRequest.Builder request = HttpRequest.newBuilder(events);
    ByteArrayOutputStream body = new ByteArrayOutputStream();
    HttpMessageFactory.createWriter(request::header, body::writeBytes).writeStructured(event, format);
    send(request, body.toByteArray(), List.of(event.getId()));
  }

  public static void main(String[] arguments) throws Exception {
    events = URI.create(arguments[0] + "/v1/events");
    List<String> ids = new ArrayList<>();
    List<String> batch = new ArrayList<>();
    for (JsonNode of : MAPPER.readTree(new File(arguments[1]))) {
      CloudEvent event = event(of);
      binary(event);
      structured(event, new JsonFormat());
      structured(event, new JsonFormat().withForceJsonDataToBase64());
      ids.add(event.getId());
      batch.add(new String(new JsonFormat().serialize(event), StandardCharsets.UTF_8));
    }
    HttpRequest.Builder request =
        HttpRequest.newBuilder(events).header("content-type", "application/cloudevents-batch+json");
    send(request, ("[" + String.join(",", batch) + "]").getBytes(StandardCharsets.UTF_8), ids);
  }
}
