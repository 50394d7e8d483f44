import java.lang.management.ManagementFactory;
import java.lang.management.ThreadInfo;
import java.lang.management.ThreadMXBean;
import java.util.Arrays;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * Makes a deadlock, has the virtual machine find it, and cures it by an order of locks.
 *
 * <p>Usage: java Deadlock
 */
public final class Deadlock {
    private Deadlock() { }

    public static void main(String[] args) throws InterruptedException {
        Object fork = new Object();
        Object knife = new Object();
        CountDownLatch meeting = new CountDownLatch(2);
        eating("Alice", fork, knife, meeting);
        eating("Bob", knife, fork, meeting);
        ThreadMXBean threads = ManagementFactory.getThreadMXBean();
        long[] stuck = threads.findDeadlockedThreads();
        while (stuck == null) {
            Thread.sleep(10);
            stuck = threads.findDeadlockedThreads();
        }
        Arrays.sort(stuck);  // by id: in the order in which they were made
        for (ThreadInfo thread : threads.getThreadInfo(stuck)) {
            System.out.printf("%s waits for a lock that %s holds%n",
                    thread.getThreadName(), thread.getLockOwnerName());
        }
        Object first = new Object();  // new things: fork and knife stay taken
        Object second = new Object();
        meeting = new CountDownLatch(2);
        Thread carol = eating("Carol", first, second, meeting);
        Thread dave = eating("Dave", first, second, meeting);
        carol.join();
        dave.join();
        System.out.println("in one order: both have eaten");
    }

    private static Thread eating(String name, Object first, Object second,
            CountDownLatch meeting) {
        Thread thread = new Thread(() -> {
            synchronized (first) {
                meeting.countDown();
                try {  // wait until both hold one, if ever they do
                    meeting.await(1, TimeUnit.SECONDS);
                } catch (InterruptedException e) {
                    return;
                }
                synchronized (second) {
                    Thread.onSpinWait();
                }
            }
        }, name);
        thread.setDaemon(true);  // the deadlocked ones must not keep the program alive
        thread.start();
        return thread;
    }
}
