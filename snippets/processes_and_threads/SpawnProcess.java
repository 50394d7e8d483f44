import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * Starts processes: their output, errors, exit code and environment; one is stopped for
 * taking too long. Needs a POSIX shell.
 *
 * <p>Usage: java SpawnProcess
 */
public final class SpawnProcess {
    private SpawnProcess() { }

    public static void main(String[] args) throws Exception {
        ProcessBuilder builder = new ProcessBuilder(
                "sh", "-c", "echo \"$GREETING\"; echo trouble >&2; exit 3");
        builder.environment().put("GREETING", "hello from the child");
        Process child = builder.start();
        // Both streams at once: a pipe holds some 64 KiB; a full one stops the child.
        CompletableFuture<String> out = reading(child.getInputStream());
        CompletableFuture<String> errors = reading(child.getErrorStream());
        System.out.println("exit code:   " + child.waitFor());
        System.out.println("output:      " + out.get());
        System.out.println("errors:      " + errors.get());
        boolean other = child.pid() != ProcessHandle.current().pid();
        System.out.println("own process: " + other);
        System.out.println("in parent:   GREETING is " + System.getenv("GREETING"));

        Process slow = new ProcessBuilder("sleep", "600").start();
        boolean ended = slow.waitFor(200, TimeUnit.MILLISECONDS);
        System.out.println("in time:     " + ended);
        slow.destroyForcibly();
        System.out.println("killed with: " + slow.waitFor());
    }

    private static CompletableFuture<String> reading(InputStream stream) {
        return CompletableFuture.supplyAsync(() -> {
            try (stream) {
                byte[] bytes = stream.readAllBytes();
                return new String(bytes, StandardCharsets.UTF_8).strip();
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        });
    }
}
