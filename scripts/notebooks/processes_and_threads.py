# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] lang="zh"
# # 进程与线程：动手试
#
# 从上往下运行即可，全程不到半分钟。需要 Linux 或 macOS，因为这里的进程用 fork 创建。
# 第一个单元是文章里测试过的 Python 代码，原样放在这里。Java 程序请从文章里复制，用 `java 文件名.java` 运行。

# %% [markdown] lang="en"
# # Processes and threads, hands on
#
# Run it from top to bottom; it takes less than half a minute. It needs Linux or macOS, because its processes
# are forked. The first cell holds the tested Python code of the article, unchanged. The Java programs are to be
# copied from the article and run with `java File.java`.

# %%
from snippets.processes_and_threads import (
    PidDataset,
    ShardedStream,
    amdahl_speedup,
    count_up,
    list_threads,
    made_by,
    memory_after,
    parallel_map,
)

# %% [markdown] lang="zh"
# ## 谁在运行
#
# 一个 Jupyter 内核本身就是多线程的：主线程运行单元，别的线程负责收发消息。

# %% [markdown] lang="en"
# ## Who is running
#
# A Jupyter kernel is multi-threaded by itself: the main thread runs the cells, others carry messages.

# %%
names = [name for name, _, _ in list_threads()]
names[0], len(names) > 1

# %% [markdown] lang="zh"
# ## 谁看得见谁的内存
#
# 第三项用的是共享内存里的张量。把 `workers` 改大试试。

# %% [markdown] lang="en"
# ## Who sees whose memory
#
# The third uses a tensor in shared memory. Try more workers.

# %%
{kind: memory_after(kind, workers=4) for kind in ("thread", "process", "shared")}

# %% [markdown] lang="zh"
# ## 丢失的更新
#
# 不加锁时，结果可能小于 4000，而且每次不同；加锁则不多不少。

# %% [markdown] lang="en"
# ## Lost updates
#
# Without a lock the result may fall short of 4000, differently each time; with one it is exact.

# %%
import threading
import time

from torch.utils.data import DataLoader

unlocked = count_up(8, 500)
locked = count_up(8, 500, threading.Lock())
unlocked <= 4000, locked

# %% [markdown] lang="zh"
# ## 等待可以重叠
#
# 八次各 50 毫秒的等待，四个线程一起等。把 `time.sleep` 换成一个纯 Python 循环，再比一比线程和进程。

# %% [markdown] lang="en"
# ## Waiting overlaps
#
# Eight waits of 50 ms each, by four threads. Put a loop in pure Python in place of `time.sleep`, and compare
# threads with processes.

# %%
start = time.perf_counter()
parallel_map(time.sleep, [0.05] * 8, workers=4, kind="thread")
print(f"{time.perf_counter() - start:.2f} s: two rounds of 50 ms instead of eight")

# %%
[round(amdahl_speedup(serial, 4), 2) for serial in (0, 0.1, 0.5, 1)]

# %% [markdown] lang="zh"
# ## DataLoader 的工作进程
#
# 每个工作进程各有一份数据集的副本，各数各的；父进程的那一份没有动过。
# 流式数据集若不分片，每个工作进程都会把整条流给一遍。

# %% [markdown] lang="en"
# ## Workers of a DataLoader
#
# Each worker has its own copy of the dataset and counts for itself; the parent's copy stays untouched.
# A stream that is not shared out comes once from every worker.

# %%
dataset = PidDataset(6)
sorted(made_by(dataset, num_workers=2).values()), dataset.made

# %%
loader = DataLoader(ShardedStream(6), batch_size=None, num_workers=2)
sorted(loader)
