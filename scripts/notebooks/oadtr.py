# %% [markdown] lang="zh"
# # Oadtr：动手试
#
# 说明读者将在这里做什么。

# %% [markdown] lang="en"
# # Oadtr: try it
#
# Say what the reader will do here.

# %%
import torch

from snippets.oadtr import oadtr_example

# %%
oadtr_example(torch.arange(5.0))
