# %% [markdown] lang="zh"
# # Processes and threads：动手试
#
# 说明读者将在这里做什么。

# %% [markdown] lang="en"
# # Processes and threads: try it
#
# Say what the reader will do here.

# %%
import torch

from snippets.processes_and_threads import processes_and_threads_example

# %%
processes_and_threads_example(torch.arange(5.0))
