#include "same_files.h"

#include <algorithm>
#include <cstdint>
#include <fstream>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/sha256.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

constexpr std::int64_t kSample_bytes = 4096;
constexpr std::int64_t kSamples = 64;
constexpr std::size_t kDigest = 64;  // characters

/// Of a file's size and kSamples blocks, the first and the last among them.
std::string fingerprint(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path));
  std::string text = std::to_string(size) + "\n", block(kSample_bytes, '\0');
  const std::int64_t last = std::max<std::int64_t>(0, size - kSample_bytes);
  const std::int64_t count = std::min(kSamples, last / kSample_bytes + 2);
  for (std::int64_t i = 0; i < count; ++i) {
    file.seekg(last / (count - 1) * i + last % (count - 1) * i / (count - 1));
    file.read(block.data(), kSample_bytes);
    text.append(block.data(), static_cast<std::size_t>(file.gcount()));
    file.clear();
  }
  if (!file) throw InputError("cannot read '" + path.string() + "'");
  return sha256_bytes(text.data(), text.size());
}

}  // namespace

void require_same_files(const std::vector<std::filesystem::path>& files, const std::vector<std::string>& hosts,
                        Communicator& world) {
  if (world.size() == 1) return;
  std::string mine;  // digests, one behind the other
  agree(world, [&] {
    for (const std::filesystem::path& file : files) mine += fingerprint(file);
  });
  const std::vector<std::string> all = world.all_gather_bytes(mine);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all.front()) continue;
    const auto apart = std::ranges::mismatch(all.front(), all[rank]).in1 - all.front().begin();
    const std::size_t which = static_cast<std::size_t>(apart) / kDigest;
    throw InputError("ranks read different files: " +
                     (which < files.size() ? quote(files[which].string()) : std::string("the weights'")) +
                     " is not the same for rank 0 on " + hosts.front() + " and for rank " + std::to_string(rank) +
                     " on " + hosts[rank] + "; put one file where all ranks find it");
  }
}

}  // namespace hesspect
