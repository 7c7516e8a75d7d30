// Checkpoints of a run that restarts thick: each generation is all that is needed, and no more.
#include "hesspect/run/lanczos_checkpoint.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/comm/agree.h"
#include "hesspect/comm/mpi_communicator.h"
#include "krylov/runs.h"

namespace hesspect::lanczos_checkpoint_test {
namespace {

namespace fs = std::filesystem;

using testing::DiagonalOperator;
using testing::pattern_vector;
using testing::Scalars;

/// Rows of the basis that the newest generation names, of one rank.
std::int64_t stored_rows(const CheckpointFolder& folder) {
  std::int64_t rows = 0;
  for (const Piece& piece : folder.manifests(0, "run").front().pieces) rows += piece.rank == 0 ? piece.rows : 0;
  return rows;
}

TEST(LanczosCheckpoint, ThickRestartsAreNewGenerations) {
  const auto world = MpiCommunicator::world();
  const std::string path = world->broadcast_bytes(
      (fs::temp_directory_path() / ("lanczos_checkpoint_test-" + std::to_string(::getpid()))).string());
  {
    CheckpointFolder folder{fs::path(path)};
    agree(*world, [&] {
      if (world->rank() == 0) folder.lock();
    });
    LanczosCheckpoint writer(folder, "run", *world);
    DiagonalOperator op(*world, 3001, at::kDouble, [](std::int64_t i) { return std::cos(static_cast<double>(i)); });
    Lanczos run(op, pattern_vector(op));
    std::vector<std::shared_ptr<Lanczos>> stops;
    // drive_thick looks before and after each thick restart: at the same step twice.
    testing::drive_thick(op, run, 20, 3, [&] {
      writer.save(0, run, op.shard());
      LanczosCheckpoint reader(folder, "run", *world);
      const std::shared_ptr<Lanczos> resumed =
          reader.resume(op, 0, {}, [](const std::string& warning) { ADD_FAILURE() << warning; });
      ASSERT_TRUE(resumed);
      EXPECT_EQ(to_bytes(resumed->record()), to_bytes(run.record()));
      EXPECT_EQ(stored_rows(folder), run.t().rows() + 1);
      for (std::int64_t row = run.record().first_row; row <= run.record().first_row + run.t().rows(); ++row)
        EXPECT_TRUE(at::equal(resumed->stored().basis(row), run.stored().basis(row))) << row;
      if (run.steps() % 6 == 0) stops.push_back(resumed);
    });
    for (const auto& stop : stops) {
      testing::drive_thick(op, *stop, 20, 3);
      EXPECT_EQ(Scalars::of(*stop), Scalars::of(run));
    }
    EXPECT_GT(run.t().thick_restarts.size(), 2U);
    // Nothing is left of the rows that were given up, but for the generation before.
    const auto manifests = agreed(*world, [&] { return folder.manifests(0, "run"); });
    EXPECT_LE(manifests.size(), 2U);
    world->barrier();
  }
  if (world->rank() == 0) fs::remove_all(path);
}

}  // namespace
}  // namespace hesspect::lanczos_checkpoint_test
