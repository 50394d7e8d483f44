import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CountDownLatch;

/**
 * What waiting threads add to the memory of this process: reserved address space, and
 * memory really in use. Needs Linux's /proc.
 *
 * <p>Usage: java StackMemory [threads] [MiB of stack of each]
 */
public final class StackMemory {
    private StackMemory() { }

    public static void main(String[] args) throws Exception {
        int count = args.length > 0 ? Integer.parseInt(args[0]) : 100;
        long stack = args.length > 1 ? Long.parseLong(args[1]) : 8;
        CountDownLatch running = new CountDownLatch(count);
        CountDownLatch end = new CountDownLatch(1);
        long reserved = kibibytes("VmSize");
        long used = kibibytes("VmRSS");
        for (int i = 0; i < count; i++) {
            new Thread(null, () -> {
                running.countDown();
                try {
                    end.await();
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            }, "idle", stack << 20).start();
        }
        running.await();
        System.out.printf("threads %d, stack %d MiB%n", count, stack);
        System.out.printf("reserved %d MiB%n", (kibibytes("VmSize") - reserved) >> 10);
        long each = (kibibytes("VmRSS") - used) / count;
        System.out.printf("in use %d KiB per thread%n", each);
        end.countDown();
    }

    private static long kibibytes(String key) throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith(key + ":")) {
                return Long.parseLong(line.replaceAll("\\D", ""));
            }
        }
        throw new IOException("no " + key);
    }
}
