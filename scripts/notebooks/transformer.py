# %% [markdown] lang="zh"
# # Transformer：动手试
#
# 说明读者将在这里做什么。

# %% [markdown] lang="en"
# # Transformer: try it
#
# Say what the reader will do here.

# %%
import torch

from snippets.transformer import transformer_example

# %%
transformer_example(torch.arange(5.0))
