import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;

/**
 * Few threads, many tasks: the sum of the first n squares, one task per ten numbers.
 *
 * <p>Usage: java ThreadPool [threads] [n]
 */
public final class ThreadPool {
    private ThreadPool() { }

    public static void main(String[] args) throws Exception {
        int threads = args.length > 0 ? Integer.parseInt(args[0]) : 2;
        int n = args.length > 1 ? Integer.parseInt(args[1]) : 10_000;
        Set<String> workers = ConcurrentHashMap.newKeySet();
        List<Callable<Long>> tasks = new ArrayList<>();
        for (int i = 0; i < n; i += 10) {
            int start = i + 1;
            int end = Math.min(i + 10, n);
            tasks.add(() -> {
                workers.add(Thread.currentThread().getName());
                long sum = 0;
                for (long k = start; k <= end; k++) {
                    sum += k * k;
                }
                return sum;
            });
        }
        ExecutorService pool = Executors.newFixedThreadPool(threads);
        long total = 0;
        for (Future<Long> part : pool.invokeAll(tasks)) {
            total += part.get();
        }
        System.out.printf("%d tasks, sum %d%n", tasks.size(), total);
        boolean few = workers.size() <= threads;
        System.out.printf("no more than %d threads: %b%n", threads, few);
        Future<Integer> failing = pool.submit(() -> Integer.parseInt("x"));
        try {
            failing.get();  // who does not ask never hears of the exception
        } catch (ExecutionException e) {
            System.out.println("task failed: " + e.getCause().getMessage());
        }
        pool.shutdown();
        System.out.println("ended: " + pool.awaitTermination(10, TimeUnit.SECONDS));
        try {
            pool.submit(() -> 1);
        } catch (RejectedExecutionException e) {
            System.out.println("after shutdown: RejectedExecutionException");
        }
    }
}
