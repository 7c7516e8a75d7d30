// Functions that a program writes out, as one node each.
#pragma once

#include "node_list.h"

namespace hesspect {

/// Makes one node of RMS norm as Hugging Face writes it, x · rsqrt(mean(x²) + eps) · w, of GPT-2's GELU,
/// x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³))), and of a softmax with the scale and the mask of its scores, where nothing
/// else reads the values in between. list.active may say more than is so. A node's op is then the
/// one whose rule it takes, its instruction the region of what it stands for: that is what is run where no rule is.
void fuse(NodeList& list);

}  // namespace hesspect
