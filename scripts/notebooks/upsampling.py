# %% [markdown] lang="zh"
# # Upsampling：动手试
#
# 说明读者将在这里做什么。

# %% [markdown] lang="en"
# # Upsampling: try it
#
# Say what the reader will do here.

# %%
import torch

from snippets.upsampling import upsampling_example

# %%
upsampling_example(torch.arange(5.0))
