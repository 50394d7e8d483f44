/**
 * Asks a spinning thread to stop, through a plain flag and through a volatile one.
 *
 * <p>Nothing obliges a thread to see a plain write of another: the compiler may read
 * the flag once and never again. A volatile write is seen by every later read.
 *
 * <p>Usage: java Visibility [milliseconds to wait for the plain flag]
 */
public final class Visibility {
    private static boolean plain;
    private static volatile boolean marked;

    private Visibility() { }

    public static void main(String[] args) throws InterruptedException {
        long patience = args.length > 0 ? Long.parseLong(args[0]) : 1000;
        Thread deaf = spinning(() -> {
            long turns = 0;
            while (!plain) {
                turns++;
            }
            return turns;
        });
        Thread listening = spinning(() -> {
            long turns = 0;
            while (!marked) {
                turns++;
            }
            return turns;
        });
        Thread.sleep(300);  // time for the compiler to optimize both loops
        plain = true;
        marked = true;
        listening.join();
        System.out.println("volatile flag: stopped");
        deaf.join(patience);
        String end = deaf.isAlive() ? "still spinning" : "stopped";
        System.out.printf("plain flag:    %s%n", end);
    }

    private interface Loop {
        long turns();
    }

    private static Thread spinning(Loop loop) {
        Thread thread = new Thread(loop::turns);
        thread.setDaemon(true);  // or the program would never end
        thread.start();
        return thread;
    }
}
