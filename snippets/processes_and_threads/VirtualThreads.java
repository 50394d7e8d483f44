import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Starts many virtual threads that all wait at the same time, and tells what is special
 * about them. Needs Java 21.
 *
 * <p>Usage: java VirtualThreads [threads]
 */
public final class VirtualThreads {
    private VirtualThreads() { }

    public static void main(String[] args) throws InterruptedException {
        int count = args.length > 0 ? Integer.parseInt(args[0]) : 10_000;
        CountDownLatch gate = new CountDownLatch(1);
        AtomicInteger through = new AtomicInteger();
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            threads.add(Thread.ofVirtual().start(() -> {
                try {
                    gate.await();  // parks the virtual thread, not its carrier
                    through.incrementAndGet();
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            }));
        }
        int listed = ManagementFactory.getThreadMXBean().getThreadCount();
        System.out.printf("%d virtual threads alive, listed by JMX: %s%n",
                count, listed < count ? "none of them" : "some of them");
        gate.countDown();
        for (Thread thread : threads) {
            thread.join();
        }
        System.out.printf("through the gate: %d%n", through.get());

        Thread one = Thread.ofVirtual().unstarted(() -> { });
        System.out.printf("virtual %b, daemon %b, name \"%s\"%n",
                one.isVirtual(), one.isDaemon(), one.getName());
        try {
            one.setDaemon(false);
        } catch (IllegalArgumentException e) {
            System.out.println("setDaemon(false): IllegalArgumentException");
        }
    }
}
