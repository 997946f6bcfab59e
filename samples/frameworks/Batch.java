// A scheduler over /v1/framework in one file, with nothing but the JDK: places COUNT tasks of one wasm file on whatever the cluster offers, places those
// again that are lost, and ends when all have finished.
//
//     java samples/frameworks/Batch.java FILE.wasm COUNT [ARG...]      with SKEP_MASTER, SKEP_TOKEN and SKEP_CA

import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Batch {
    static final long CPU_MILLI = 100, MEMORY = 16 << 20;
    static final int TRIES = 60, WAIT_MS = 1_000;

    final HttpClient http;
    final String token = System.getenv("SKEP_TOKEN");
    final String[] masters = System.getenv("SKEP_MASTER").split(",");
    /** Who answered the subscription: all calls go there. */
    URI where;
    String id, stream;
    final String wasm;
    final List<String> args;
    final int count;
    final Deque<String> waiting = new ArrayDeque<>();
    final Set<String> placed = new HashSet<>();
    int finished, tries;

    Batch(String file, int count, List<String> args) throws Exception {
        this.http = HttpClient.newBuilder().sslContext(trusting(System.getenv("SKEP_CA"))).followRedirects(HttpClient.Redirect.NORMAL).build();
        this.count = count;
        this.args = args;
        this.wasm = push(Path.of(file));
        for (int n = 0; n < count; n++) waiting.add("task-" + n);
    }

    /** Uploads a bundle to the first master that takes it; gives back how a job names it. */
    String push(Path file) throws Exception {
        for (int n = 0;; n++) {
            var uri = URI.create(masters[n % masters.length] + "/v1/bundles");
            var push = request(uri).header("Content-Type", "application/octet-stream").POST(HttpRequest.BodyPublishers.ofFile(file)).build();
            try {
                var answer = http.send(push, HttpResponse.BodyHandlers.ofString());
                if (answer.statusCode() < 300) return (String) object(Json.parse(answer.body())).get("digest");
                if (answer.statusCode() < 500) throw new IllegalArgumentException(file + ": " + answer.body());
            } catch (java.io.IOException error) {
                if (n > TRIES) throw error;
            }
            Thread.sleep(WAIT_MS);
        }
    }

    static SSLContext trusting(String file) throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        var certificates = CertificateFactory.getInstance("X.509").generateCertificates(new ByteArrayInputStream(Files.readAllBytes(Path.of(file))));
        for (var certificate : certificates) store.setCertificateEntry("ca-" + store.size(), certificate);
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        var context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    HttpRequest.Builder request(URI uri) {
        return HttpRequest.newBuilder(uri).header("Authorization", "Bearer " + token);
    }

    HttpRequest post(URI uri, Object body) {
        return request(uri).header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(Json.text(body))).build();
    }

    /** One call; where it was not taken in, since another master leads or the connection broke, the framework subscribes anew. */
    void say(String kind, Object body) throws Exception {
        var answer = http.send(post(where, map("id", id, "stream", stream, kind, body)), HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() >= 400) throw new java.io.IOException(answer.statusCode() + ": " + answer.body());
    }

    /** Subscribes and hears, until all is done or the connection breaks. */
    boolean hear(String master) throws Exception {
        var about = map("name", "batch-java", "failover_ms", 60_000);
        if (id != null) about.put("id", id);
        var answer = http.send(post(URI.create(master + "/v1/framework"), map("subscribe", about)), HttpResponse.BodyHandlers.ofLines());
        if (answer.statusCode() != 200) throw new java.io.IOException("subscribing: " + answer.statusCode());
        where = answer.uri();
        for (var lines = answer.body().iterator(); lines.hasNext();) {
            for (var event : object(Json.parse(lines.next())).entrySet()) {
                switch (event.getKey()) {
                    case "subscribed" -> subscribed(object(event.getValue()));
                    case "offers" -> {
                        for (var offer : (List<?>) event.getValue()) offered(object(offer));
                    }
                    case "update" -> updated(object(event.getValue()));
                    case "error" -> throw new IllegalStateException("the framework is gone: " + event.getValue());
                    default -> { }
                }
            }
            if (finished == count) {
                say("teardown", true);
                return true;
            }
        }
        return false;
    }

    void subscribed(Map<String, Object> who) throws Exception {
        id = (String) who.get("id");
        stream = (String) who.get("stream");
        if (!placed.isEmpty()) say("reconcile", new ArrayList<>(placed));
    }

    void offered(Map<String, Object> offer) throws Exception {
        var resources = object(offer.get("resources"));
        long room = Math.min(number(resources.get("cpu_milli")) / CPU_MILLI, number(resources.get("memory_bytes")) / MEMORY);
        var tasks = new ArrayList<Object>();
        while (room-- > 0 && !waiting.isEmpty()) {
            String name = waiting.remove();
            placed.add(name);
            var needs = map("cpu", CPU_MILLI / 1000.0, "memory", String.valueOf(MEMORY));
            tasks.add(map("name", name, "job", map("task", map("wasm", wasm, "args", args), "resources", needs)));
        }
        var offers = List.of(offer.get("id"));
        if (tasks.isEmpty()) say("decline", map("offers", offers));
        else say("accept", map("offers", offers, "tasks", tasks, "refuse_ms", 0));
    }

    void updated(Map<String, Object> update) throws Exception {
        String name = (String) update.get("task"), state = (String) update.get("state");
        boolean over = Set.of("finished", "failed", "killed", "rejected", "lost").contains(state);
        if (over && placed.remove(name)) {
            if (state.equals("finished")) finished++;
            else {
                waiting.add("task-" + count + "-" + tries++);
                say("revive", List.of());
            }
        }
        if (update.get("uuid") != null) say("acknowledge", map("task", name, "uuid", update.get("uuid")));
    }

    public static void main(String[] words) throws Exception {
        var batch = new Batch(words[0], Integer.parseInt(words[1]), List.of(words).subList(2, words.length));
        for (int n = 0;; n++) {
            try {
                if (batch.hear(batch.masters[n % batch.masters.length])) break;
            } catch (java.io.IOException | java.io.UncheckedIOException error) {
                System.err.println("again: " + error.getMessage());
            }
            Thread.sleep(WAIT_MS);
        }
        System.out.println(batch.finished + " tasks finished");
    }

    static Map<String, Object> map(Object... pairs) {
        var map = new LinkedHashMap<String, Object>();
        for (int n = 0; n < pairs.length; n += 2) map.put((String) pairs[n], pairs[n + 1]);
        return map;
    }

    @SuppressWarnings("unchecked")
    static Map<String, Object> object(Object value) {
        return (Map<String, Object>) value;
    }

    static long number(Object value) {
        return ((Number) value).longValue();
    }

    /** As much JSON as this needs: objects are maps, arrays lists, numbers doubles. */
    static final class Json {
        private final String text;
        private int at;

        private Json(String text) {
            this.text = text;
        }

        static Object parse(String text) {
            return new Json(text).value();
        }

        private char next() {
            while (Character.isWhitespace(text.charAt(at))) at++;
            return text.charAt(at);
        }

        private Object value() {
            switch (next()) {
                case '{': {
                    var map = new LinkedHashMap<String, Object>();
                    for (at++; next() != '}';) {
                        if (next() == ',') at++;
                        next();
                        String name = string();
                        next();
                        at++;
                        map.put(name, value());
                    }
                    at++;
                    return map;
                }
                case '[': {
                    var list = new ArrayList<Object>();
                    for (at++; next() != ']';) {
                        if (next() == ',') at++;
                        list.add(value());
                    }
                    at++;
                    return list;
                }
                case '"':
                    return string();
                default: {
                    int from = at;
                    while (at < text.length() && ",]} \t\r\n".indexOf(text.charAt(at)) < 0) at++;
                    String word = text.substring(from, at);
                    return switch (word) {
                        case "true" -> true;
                        case "false" -> false;
                        case "null" -> null;
                        default -> Double.valueOf(word);
                    };
                }
            }
        }

        private String string() {
            var out = new StringBuilder();
            for (at++; text.charAt(at) != '"'; at++) {
                char c = text.charAt(at);
                if (c != '\\') {
                    out.append(c);
                    continue;
                }
                switch (c = text.charAt(++at)) {
                    case 'n' -> out.append('\n');
                    case 't' -> out.append('\t');
                    case 'r' -> out.append('\r');
                    case 'b' -> out.append('\b');
                    case 'f' -> out.append('\f');
                    case 'u' -> {
                        out.append((char) Integer.parseInt(text.substring(at + 1, at + 5), 16));
                        at += 4;
                    }
                    default -> out.append(c);
                }
            }
            at++;
            return out.toString();
        }

        static String text(Object value) {
            if (value instanceof Map<?, ?> map) {
                var parts = new ArrayList<String>();
                map.forEach((name, inner) -> parts.add(text(name) + ":" + text(inner)));
                return "{" + String.join(",", parts) + "}";
            }
            if (value instanceof List<?> list) return "[" + String.join(",", list.stream().map(Json::text).toList()) + "]";
            if (!(value instanceof String string)) return String.valueOf(value);
            var out = new StringBuilder("\"");
            for (char c : string.toCharArray()) {
                if (c == '"' || c == '\\') out.append('\\').append(c);
                else if (c < ' ') out.append(String.format("\\u%04x", (int) c));
                else out.append(c);
            }
            return out.append('"').toString();
        }
    }
}
