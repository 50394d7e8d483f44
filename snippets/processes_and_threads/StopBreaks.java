/**
 * Why Thread.stop() was withdrawn: it ends a thread between any two instructions, and
 * so releases a lock while what the lock protects is half changed.
 *
 * <p>From Java 20 on, stop() only throws UnsupportedOperationException, and Java 26 has
 * it no more; it is called by name, so that this compiles everywhere.
 *
 * <p>Usage: java StopBreaks
 */
public final class StopBreaks {
    private static final Object LOCK = new Object();
    private static volatile long debit;
    private static volatile long credit;

    private StopBreaks() { }

    public static void main(String[] args) throws InterruptedException {
        Thread worker = new Thread(() -> {
            synchronized (LOCK) {
                debit = 1;
                pause();  // the two differ, but only who holds the lock can see it
                credit = 1;
            }
        });
        worker.setDaemon(true);
        worker.start();
        while (debit == 0) {
            Thread.onSpinWait();
        }
        System.out.printf("lock taken: debit %d, credit %d%n", debit, credit);
        try {
            Thread.class.getMethod("stop").invoke(worker);
            worker.join();
        } catch (NoSuchMethodException e) {
            System.out.println("stop(): no such method");
            return;
        } catch (ReflectiveOperationException e) {
            System.out.println("stop(): " + e.getCause().getClass().getSimpleName());
            return;
        }
        synchronized (LOCK) {  // free again, as if all were well
            System.out.printf("after stop(): debit %d, credit %d%n", debit, credit);
        }
    }

    private static void pause() {
        try {
            Thread.sleep(600_000);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
