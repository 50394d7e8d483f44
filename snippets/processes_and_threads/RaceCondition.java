import java.util.concurrent.Phaser;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.LongAdder;
import java.util.function.LongSupplier;

/**
 * Counts with several threads in five ways; the first two lose updates.
 *
 * <p>Usage: java RaceCondition [threads] [counts of each]
 */
public final class RaceCondition {
    private int plain;
    private volatile int marked;
    private int guarded;
    private final AtomicInteger atomic = new AtomicInteger();
    private final LongAdder adder = new LongAdder();
    private final int threads;
    private final int times;

    private RaceCondition(int threads, int times) {
        this.threads = threads;
        this.times = times;
    }

    public static void main(String[] args) throws InterruptedException {
        int threads = args.length > 0 ? Integer.parseInt(args[0]) : 4;
        int times = args.length > 1 ? Integer.parseInt(args[1]) : 250_000;
        RaceCondition race = new RaceCondition(threads, times);
        race.run("plain int", () -> race.plain++, () -> race.plain);
        race.run("volatile int", () -> race.marked++, () -> race.marked);
        race.run("synchronized", race::addGuarded, () -> race.guarded);
        race.run("AtomicInteger", race.atomic::incrementAndGet, race.atomic::get);
        race.run("LongAdder", race.adder::increment, race.adder::sum);
    }

    private synchronized void addGuarded() {
        guarded++;
    }

    private void run(String name, Runnable add, LongSupplier total)
            throws InterruptedException {
        Phaser ready = new Phaser(threads);
        Thread[] workers = new Thread[threads];
        for (int i = 0; i < threads; i++) {
            workers[i] = new Thread(() -> {
                ready.arriveAndAwaitAdvance();  // so that all count at the same time
                for (int n = 0; n < times; n++) {
                    add.run();
                }
            });
            workers[i].start();
        }
        for (Thread worker : workers) {
            worker.join();  // join() also makes what the worker wrote visible here
        }
        long wanted = (long) threads * times;
        System.out.printf("%-14s %,10d of %,10d, lost %,9d%n",
                name, total.getAsLong(), wanted, wanted - total.getAsLong());
    }
}
