# %% [markdown] lang="zh"
# # Detr：动手试
#
# 说明读者将在这里做什么。

# %% [markdown] lang="en"
# # Detr: try it
#
# Say what the reader will do here.

# %%
import torch

from snippets.detr import detr_example

# %%
detr_example(torch.arange(5.0))
