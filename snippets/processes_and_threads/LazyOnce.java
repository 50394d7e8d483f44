import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;

/**
 * Two right ways to make an object at its first use, however many threads ask at once.
 *
 * <p>Usage: java LazyOnce [threads]
 */
public final class LazyOnce {
    private static final AtomicInteger MADE = new AtomicInteger();
    private static volatile LazyOnce instance;  // without volatile this is broken

    private LazyOnce() {
        MADE.incrementAndGet();
        try {
            Thread.sleep(50);  // slow to make, so that all threads come meanwhile
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static LazyOnce doubleChecked() {
        LazyOnce seen = instance;
        if (seen == null) {
            synchronized (LazyOnce.class) {
                seen = instance;
                if (seen == null) {
                    seen = new LazyOnce();
                    instance = seen;
                }
            }
        }
        return seen;
    }

    private static final class Holder {
        static final LazyOnce IT = new LazyOnce();  // initialized once
    }

    public static void main(String[] args) throws InterruptedException {
        int threads = args.length > 0 ? Integer.parseInt(args[0]) : 8;
        ask("volatile, checked twice", threads, LazyOnce::doubleChecked);
        ask("class that holds it", threads, () -> Holder.IT);
    }

    private static void ask(String name, int threads, Supplier<LazyOnce> source)
            throws InterruptedException {
        MADE.set(0);
        Set<LazyOnce> seen = ConcurrentHashMap.newKeySet();
        Thread[] askers = new Thread[threads];
        for (int i = 0; i < threads; i++) {
            askers[i] = new Thread(() -> seen.add(source.get()));
            askers[i].start();
        }
        for (Thread asker : askers) {
            asker.join();
        }
        System.out.printf("%s: made %d, seen %d%n", name, MADE.get(), seen.size());
    }
}
