import java.lang.management.ManagementFactory;
import java.lang.management.ThreadInfo;
import java.lang.management.ThreadMXBean;
import java.util.concurrent.CountDownLatch;

/**
 * Makes a deadlock, has the virtual machine find it, and cures it by an order of locks.
 *
 * <p>Usage: java Deadlock
 */
public final class Deadlock {
    private static final Object FORK = new Object();
    private static final Object KNIFE = new Object();

    private Deadlock() { }

    public static void main(String[] args) throws InterruptedException {
        CountDownLatch bothHoldOne = new CountDownLatch(2);
        eating("Alice", FORK, KNIFE, bothHoldOne);
        eating("Bob", KNIFE, FORK, bothHoldOne);
        ThreadMXBean threads = ManagementFactory.getThreadMXBean();
        long[] stuck = threads.findDeadlockedThreads();
        while (stuck == null) {
            Thread.sleep(10);
            stuck = threads.findDeadlockedThreads();
        }
        for (ThreadInfo thread : threads.getThreadInfo(stuck)) {
            System.out.printf("%s waits for a lock that %s holds%n",
                    thread.getThreadName(), thread.getLockOwnerName());
        }

        Object first = new Object();  // new things: the old ones stay taken
        Object second = new Object();
        Thread carol = eating("Carol", first, second, new CountDownLatch(1));
        Thread dave = eating("Dave", first, second, new CountDownLatch(1));
        carol.join();
        dave.join();
        System.out.println("in one order: both have eaten");
    }

    private static Thread eating(String name, Object first, Object second,
            CountDownLatch meeting) {
        Thread thread = new Thread(() -> {
            synchronized (first) {
                meeting.countDown();
                try {
                    meeting.await();
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
