import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Arrays;

/**
 * The state of a thread that waits for a connection to a socket.
 *
 * <p>Usage: java RunnableInIo
 */
public final class RunnableInIo {
    private RunnableInIo() { }

    public static void main(String[] args) throws Exception {
        InetAddress here = InetAddress.getLoopbackAddress();
        try (ServerSocket server = new ServerSocket(0, 1, here)) {
            Thread worker = new Thread(() -> {
                try {
                    server.accept().close();
                } catch (IOException e) {
                    throw new UncheckedIOException(e);
                }
            });
            worker.start();
            while (!accepting(worker)) {
                Thread.onSpinWait();
            }
            System.out.println("in accept():  " + worker.getState());
            new Socket(here, server.getLocalPort()).close();
            worker.join();
            System.out.println("afterwards:   " + worker.getState());
        }
    }

    /** Whether a thread is in accept(), and there in a method not written in Java. */
    private static boolean accepting(Thread thread) {
        StackTraceElement[] frames = thread.getStackTrace();
        return frames.length > 0 && frames[0].isNativeMethod() && Arrays.stream(frames)
                .anyMatch(frame -> frame.getMethodName().equals("accept"));
    }
}
