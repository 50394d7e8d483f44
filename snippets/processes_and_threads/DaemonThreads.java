import java.util.concurrent.CountDownLatch;

/**
 * A virtual machine ends with its last user thread; it does not wait for daemon
 * threads, and gives them no time for their finally blocks.
 *
 * <p>Usage: java DaemonThreads [daemon | user]
 */
public final class DaemonThreads {
    private DaemonThreads() { }

    public static void main(String[] args) throws InterruptedException {
        boolean daemon = args.length == 0 || args[0].equals("daemon");
        Thread main = Thread.currentThread();
        CountDownLatch told = new CountDownLatch(1);
        Thread worker = new Thread(() -> {
            Thread child = new Thread(() -> { });
            System.out.println("worker: daemon " + Thread.currentThread().isDaemon()
                    + ", so a child of it: daemon " + child.isDaemon());
            told.countDown();
            try {
                main.join();
                Thread.sleep(daemon ? 600_000 : 100);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            } finally {
                System.out.println("worker: finished");
            }
        });
        worker.setDaemon(daemon);  // only before start()
        worker.start();
        told.await();
        Runtime.getRuntime().addShutdownHook(
                new Thread(() -> System.out.println("virtual machine: ends")));
        System.out.println("main: returns");
    }
}
