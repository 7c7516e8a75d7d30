// When a series that has died gives a checkpoint up.
#include "hesspect/series/series_book.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

namespace hesspect::series_book_test {
namespace {

namespace fs = std::filesystem;

class Deaths : public ::testing::Test {
 protected:
  Deaths() : folder_(fs::temp_directory_path() / ("series_book." + std::to_string(getpid()))) {
    fs::create_directories(folder_);
    std::ofstream(folder_ / "step-1.pt") << "weights";
    config_.series.checkpoints = {(folder_ / "step-1.pt").string()};
    config_.output.output = (folder_ / "series.h5").string();
  }
  ~Deaths() override { fs::remove_all(folder_); }

  /// A series is begun again as often, each time with so many products in the run's checkpoint, and dies.
  /// @return of the last start: what there was to do
  SeriesStep::Kind died_with(const std::vector<std::int64_t>& kept) {
    SeriesStep step;
    for (const std::int64_t products : kept) {
      SeriesBook book(config_, "test", [products](const std::string&) { return products; });
      step = book.next();
      state_ = book.ledger().entries.at(0).state;
    }
    return step.kind;
  }

  fs::path folder_;
  RunConfig config_;
  SeriesState state_ = SeriesState::kFound;
};

TEST_F(Deaths, ThreeWithoutAGainAreEnough) {
  EXPECT_EQ(died_with({0, 0, 0}), SeriesStep::Kind::kTake);
  EXPECT_EQ(died_with({0}), SeriesStep::Kind::kEnd);
  EXPECT_EQ(state_, SeriesState::kFailed);
}

TEST_F(Deaths, ThoseWithAGainDontCount) {
  EXPECT_EQ(died_with({0, 4, 7, 9, 12, 13, 20}), SeriesStep::Kind::kTake);
  EXPECT_EQ(died_with({20, 20}), SeriesStep::Kind::kTake);  // two in a row without one
  EXPECT_EQ(died_with({21, 21, 21}), SeriesStep::Kind::kTake);
  EXPECT_EQ(died_with({21}), SeriesStep::Kind::kEnd);
}

TEST_F(Deaths, OneWithItsHostIsNone) {
  const fs::path boot = folder_ / "boot";
  setenv("HESSPECT_BOOT_ID", boot.c_str(), 1);
  for (int i = 0; i < 8; ++i) {
    std::ofstream(boot) << i;
    EXPECT_EQ(died_with({0}), SeriesStep::Kind::kTake) << i;
  }
  EXPECT_EQ(died_with({0, 0}), SeriesStep::Kind::kTake);  // the host runs on
  EXPECT_EQ(died_with({0}), SeriesStep::Kind::kEnd);
  unsetenv("HESSPECT_BOOT_ID");
}

TEST_F(Deaths, AStopIsNoDeath) {
  for (int i = 0; i < 5; ++i) {
    SeriesBook book(config_, "test");
    ASSERT_EQ(book.next().kind, SeriesStep::Kind::kTake);
    book.stopped();
  }
}

}  // namespace
}  // namespace hesspect::series_book_test
