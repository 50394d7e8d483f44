import java.lang.reflect.Method;
import java.util.Arrays;

/**
 * Times what it takes to start something that does nothing and wait for its end: a
 * process, a platform thread, a virtual thread (where Java has them), a method call.
 *
 * <p>Usage: java CreationCost [rounds]
 */
public final class CreationCost {
    private CreationCost() { }

    private interface Job {
        void run() throws Exception;
    }

    public static void main(String[] args) throws Exception {
        int rounds = args.length > 0 ? Integer.parseInt(args[0]) : 20;
        Runnable nothing = () -> { };
        time("process", rounds, 1, () -> new ProcessBuilder("true").start().waitFor());
        time("platform thread", rounds, 200, () -> {
            Thread thread = new Thread(nothing);
            thread.start();
            thread.join();
        });
        if (Runtime.version().feature() >= 21) {
            Method start = Thread.class.getMethod("startVirtualThread", Runnable.class);
            time("virtual thread", rounds, 200,
                    () -> ((Thread) start.invoke(null, nothing)).join());
        }
        time("method call", rounds, 200, nothing::run);
    }

    /** Prints the quartiles over rounds of the microseconds that one job took. */
    private static void time(String name, int rounds, int jobs, Job job)
            throws Exception {
        for (int i = 0; i < jobs * 10; i++) {  // warm up: the first ones load classes
            job.run();
        }
        double[] micros = new double[rounds];
        for (int round = 0; round < rounds; round++) {
            long start = System.nanoTime();
            for (int i = 0; i < jobs; i++) {
                job.run();
            }
            micros[round] = (System.nanoTime() - start) / 1e3 / jobs;
        }
        Arrays.sort(micros);
        System.out.printf("%-15s  %.4f  %.4f  %.4f%n", name, micros[rounds / 4],
                micros[rounds / 2], micros[rounds * 3 / 4]);
    }
}
