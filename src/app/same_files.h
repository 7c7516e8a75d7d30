// Whether all ranks read the same files: on several hosts a path may lead to other content, and numbers would be wrong
// without a word.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"

namespace hesspect {

/// Compares a file's size, and the content of some blocks spread over it, between ranks: all of a small file, some
/// hundred kilobytes of a large one. Collective.
/// @param files  the same names on every rank; ranks whose file is another find it here too
/// @param hosts  of each rank
/// @throws InputError on every rank: which file, on which hosts
void require_same_files(const std::vector<std::filesystem::path>& files, const std::vector<std::string>& hosts,
                        Communicator& world);

}  // namespace hesspect
