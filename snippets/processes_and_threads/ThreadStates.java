/**
 * Drives one thread through all six states of Thread.State and names each when seen.
 *
 * <p>Usage: java ThreadStates
 */
public final class ThreadStates {
    private static final Object LOCK = new Object();
    private static volatile int stage;

    private ThreadStates() { }

    public static void main(String[] args) throws InterruptedException {
        Thread worker = new Thread(ThreadStates::work, "worker");
        see(worker, Thread.State.NEW, "made, not started");
        worker.start();
        see(worker, Thread.State.RUNNABLE, "runs, or waits for a processor");
        synchronized (LOCK) {
            stage = 1;
            see(worker, Thread.State.BLOCKED, "wants a monitor that main holds");
        }
        see(worker, Thread.State.WAITING, "in wait(), until notified");
        next(2);
        see(worker, Thread.State.TIMED_WAITING, "in wait(60000), or until notified");
        next(3);
        worker.join();
        see(worker, Thread.State.TERMINATED, "its run() has returned");
    }

    private static void work() {
        while (stage < 1) {
            Thread.onSpinWait();
        }
        synchronized (LOCK) {
            try {
                while (stage < 2) {  // a loop, because wait() may return unasked
                    LOCK.wait();
                }
                while (stage < 3) {
                    LOCK.wait(60_000);
                }
            } catch (InterruptedException e) {
                throw new IllegalStateException("nobody interrupts this thread", e);
            }
        }
    }

    private static void next(int number) {
        synchronized (LOCK) {
            stage = number;
            LOCK.notifyAll();
        }
    }

    private static void see(Thread thread, Thread.State state, String why) {
        while (thread.getState() != state) {
            Thread.onSpinWait();
        }
        System.out.printf("%-13s  %s%n", state, why);
    }
}
