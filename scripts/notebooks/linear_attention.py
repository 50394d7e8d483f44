# %% [markdown] lang="zh"
# # Linear attention：动手试
#
# 说明读者将在这里做什么。

# %% [markdown] lang="en"
# # Linear attention: try it
#
# Say what the reader will do here.

# %%
import torch

from snippets.linear_attention import linear_attention_example

# %%
linear_attention_example(torch.arange(5.0))
