# %% [markdown] lang="zh"
# # Stable diffusion：动手试
#
# 说明读者将在这里做什么。

# %% [markdown] lang="en"
# # Stable diffusion: try it
#
# Say what the reader will do here.

# %%
import torch

from snippets.stable_diffusion import stable_diffusion_example

# %%
stable_diffusion_example(torch.arange(5.0))
