import java.util.concurrent.locks.ReentrantLock;

/**
 * An interrupt is a request: a flag for running code to look at, an exception out of
 * methods that wait. Catching the exception has cleared the flag.
 *
 * <p>Usage: java Interruption
 */
public final class Interruption {
    private static final ReentrantLock LOCK = new ReentrantLock();

    private Interruption() { }

    public static void main(String[] args) throws InterruptedException {
        interrupted("computing", () -> {
            while (!Thread.currentThread().isInterrupted()) {
                Thread.onSpinWait();
            }
            return "saw the flag";
        });
        interrupted("sleeping", () -> {
            Thread.sleep(600_000);
            return "slept on";
        });
        LOCK.lock();  // main never lets go of it
        interrupted("in lockInterruptibly()", () -> {
            LOCK.lockInterruptibly();
            return "got the lock";
        });
    }

    private interface Work {
        String run() throws InterruptedException;
    }

    private static void interrupted(String doing, Work work)
            throws InterruptedException {
        Thread worker = new Thread(() -> {
            String end;
            try {
                end = work.run();
            } catch (InterruptedException e) {
                end = "InterruptedException";
            }
            boolean after = Thread.currentThread().isInterrupted();
            Thread.currentThread().interrupt();  // for callers further up to see
            System.out.printf("%s: %s; flag %b, restored to %b%n",
                    doing, end, after, Thread.interrupted());
        });
        worker.start();
        Thread.sleep(100);  // the request may come early or late: it is not lost
        worker.interrupt();
        worker.join();
    }
}
