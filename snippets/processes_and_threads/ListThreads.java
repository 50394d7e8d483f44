import java.lang.management.ManagementFactory;
import java.lang.management.ThreadInfo;
import java.lang.management.ThreadMXBean;
import java.util.Arrays;
import java.util.Comparator;

/**
 * Lists the threads of this virtual machine: id, state, daemon or not, name.
 *
 * <p>Ids, names and their number differ by version; only "main" is sure to be there.
 * Threads of the compiler and the garbage collector are not listed; jstack shows them.
 * Virtual threads are not listed either.
 *
 * <p>Usage: java ListThreads [seconds to stay alive, for jstack to have a look]
 */
public final class ListThreads {
    private ListThreads() { }

    public static void main(String[] args) throws InterruptedException {
        ThreadMXBean bean = ManagementFactory.getThreadMXBean();
        ThreadInfo[] threads = bean.dumpAllThreads(false, false);
        Arrays.sort(threads, Comparator.comparingLong(ThreadInfo::getThreadId));
        System.out.printf("%4s  %-13s  %-6s  %s%n", "id", "state", "daemon", "name");
        for (ThreadInfo info : threads) {
            System.out.printf("%4d  %-13s  %-6b  %s%n", info.getThreadId(),
                    info.getThreadState(), info.isDaemon(), info.getThreadName());
        }
        System.out.printf("%d threads; Thread.activeCount(), of its group: %d%n",
                threads.length, Thread.activeCount());
        if (args.length > 0) {
            Thread.sleep(1000L * Integer.parseInt(args[0]));
        }
    }
}
