import java.util.concurrent.atomic.AtomicInteger;

/**
 * Several threads count in one object on the heap and in a local variable of their own;
 * then one of them overflows its stack, which harms no other.
 *
 * <p>Usage: java SharedHeapOwnStack [threads] [counts of each]
 */
public final class SharedHeapOwnStack {
    private static final AtomicInteger SHARED = new AtomicInteger();

    private SharedHeapOwnStack() { }

    public static void main(String[] args) throws InterruptedException {
        int count = args.length > 0 ? Integer.parseInt(args[0]) : 3;
        int times = args.length > 1 ? Integer.parseInt(args[1]) : 1000;
        int[] locals = new int[count];
        Thread[] threads = new Thread[count];
        for (int i = 0; i < count; i++) {
            int own = i;
            threads[i] = new Thread(() -> locals[own] = countTo(times));
            threads[i].start();
        }
        for (int i = 0; i < count; i++) {
            threads[i].join();
            System.out.printf("thread %d: own local variable %d%n", i, locals[i]);
        }
        System.out.printf("all threads: shared object %d%n", SHARED.get());
        System.out.printf("depth with a stack of 256 KiB: %d calls%n", depth(256));
        System.out.printf("depth with a stack of   4 MiB: %d calls%n", depth(4096));
        System.out.println("main still runs");
    }

    private static int countTo(int times) {
        int local = 0;  // in this call's frame, on this thread's stack
        for (int i = 0; i < times; i++) {
            local++;
            SHARED.incrementAndGet();
        }
        return local;
    }

    private static int depth(long kibibytes) throws InterruptedException {
        int[] calls = new int[1];
        Thread thread = new Thread(null, () -> {
            try {
                descend(calls);
            } catch (StackOverflowError e) {
                // expected: calls[0] says how far it came
            }
        }, "diver", kibibytes << 10);
        thread.start();
        thread.join();
        return calls[0];
    }

    private static void descend(int[] calls) {
        calls[0]++;
        descend(calls);
    }
}
