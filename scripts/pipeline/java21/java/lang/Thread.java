package java.lang;

/** Declarations of what Java 21 added, for an older javac; nothing here is ever run. */
public class Thread implements Runnable {
    public interface Builder {
        interface OfPlatform extends Builder { }

        interface OfVirtual extends Builder { }

        Builder name(String name);

        Thread start(Runnable task);

        Thread unstarted(Runnable task);
    }

    public Thread() { }

    public static native Builder.OfPlatform ofPlatform();

    public static native Builder.OfVirtual ofVirtual();

    public static native Thread currentThread();

    public static native void sleep(long millis) throws InterruptedException;

    @Override
    public native void run();

    public native void start();

    public final native void join() throws InterruptedException;

    public native void interrupt();

    public final native boolean isVirtual();

    public final native boolean isDaemon();

    public final native void setDaemon(boolean on);

    public final native String getName();

    public final native long threadId();
}
