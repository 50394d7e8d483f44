/**
 * What start() does that run() does not, that a thread starts once, and how a state
 * is spelled.
 *
 * <p>Usage: java StartNotRun
 */
public final class StartNotRun {
    private StartNotRun() { }

    public static void main(String[] args) throws InterruptedException {
        Thread worker = new Thread(StartNotRun::tell, "worker");
        System.out.print("run():          ");
        worker.run();  // an ordinary call: the caller does the work
        System.out.print("start():        ");
        worker.start();
        worker.join();
        System.out.print("start() again:  ");
        try {
            worker.start();
        } catch (IllegalThreadStateException e) {
            System.out.println("IllegalThreadStateException");
        }
        for (String name : new String[] {"TIME_WAITING", "TIMED_WAITING"}) {
            System.out.printf("%-14s  ", name + ":");
            try {
                Thread.State state = Thread.State.valueOf(name);
                System.out.println("constant number " + state.ordinal());
            } catch (IllegalArgumentException e) {
                System.out.println("no such state");
            }
        }
    }

    private static void tell() {
        System.out.println("run by " + Thread.currentThread().getName());
    }
}
