// Vectors that are sharded over a group's ranks, as a file.
#pragma once

#include <filesystem>
#include <functional>

#include "hesspect/io/vectors_file.h"
#include "hesspect/krylov/linear_operator.h"

namespace hesspect {

/// Writes vectors [chunk] each under the names of info.parts, gathered one at a time. Collective over op.comm().
/// @param info     its type of entries becomes the operator's
/// @param vectors  this rank's shard of vector i
/// @throws InputError (agreed) where the file can't be written
void write_vectors(const LinearOperator& op, const std::filesystem::path& path, VectorsInfo info, std::size_t count,
                   const std::function<at::Tensor(std::size_t)>& vectors);

}  // namespace hesspect
