// The ledger comes back as it was written, and what is none is refused.
#include "hesspect/series/series_ledger.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>

#include "hesspect/core/errors.h"
#include "hesspect/series/series_lock.h"

namespace hesspect::series_ledger_test {
namespace {

namespace fs = std::filesystem;

fs::path file_named(const std::string& name) {
  return fs::temp_directory_path() / (name + "." + std::to_string(getpid()));
}

TEST(SeriesLedger, ComesBack) {
  const fs::path file = file_named("ledger");
  EXPECT_FALSE(read_series_ledger(file).has_value());
  SeriesLedger ledger;
  ledger.config = "a = 1\n";
  ledger.last = "r/1.h5";
  for (const SeriesState state : {SeriesState::kFound, SeriesState::kFailed, SeriesState::kDone}) {
    SeriesEntry entry;
    entry.path = "a \"path\"/\xff" + to_string(state);  // not UTF-8
    entry.state = state;
    entry.step = state == SeriesState::kDone ? 7 : -1;
    entry.overlap = state == SeriesState::kDone ? 0.1 : std::nan("");
    ledger.entries.push_back(entry);
  }
  write_series_ledger(file, ledger);
  SeriesLedger same = read_series_ledger(file).value();
  EXPECT_EQ(same.config, ledger.config);
  EXPECT_EQ(same.last, ledger.last);
  ASSERT_EQ(same.entries.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(same.entries[i].path, ledger.entries[i].path);
    EXPECT_EQ(same.entries[i].state, ledger.entries[i].state);
    EXPECT_EQ(same.entries[i].step, ledger.entries[i].step);
  }
  EXPECT_TRUE(std::isnan(same.entries[0].overlap));
  EXPECT_EQ(same.entries[2].overlap, 0.1);
  EXPECT_EQ(same.find(ledger.entries[1].path), &same.entries[1]);
  std::ofstream(file) << "{\"layout\": 1";
  EXPECT_THROW(read_series_ledger(file), InputError);
  fs::remove(file);
}

/// As a series wrote it that counted no deaths and knew no boots.
TEST(SeriesLedger, OfAnEarlierVersion) {
  const fs::path file = file_named("earlier");
  std::ofstream(file) << R"({"layout": 1, "config": "a = 1\n", "model": "", "data": "", "ended": false, "last": "",
    "entries": [{"path": "c/step-1", "name": "step-1", "step": 1, "time": 2.5, "state": "running", "fingerprint": "f",
                 "sha256": "s", "reason": "", "exit_code": 0, "starts": 2, "result": "r.h5", "products": 0,
                 "seconds": 0.1, "fresh": true, "overlap": 0.0}]})";
  SeriesLedger ledger = read_series_ledger(file).value();
  ASSERT_EQ(ledger.entries.size(), 1U);
  const SeriesEntry& entry = ledger.entries[0];
  EXPECT_EQ(entry.count.starts, 2);
  EXPECT_EQ(entry.count.deaths, 0);
  EXPECT_EQ(entry.count.kept, 0);
  EXPECT_EQ(entry.boot.id, "");
  EXPECT_EQ(entry.seconds, 0.1);
  ledger.entries[0].count = {3, 1, 40};
  ledger.entries[0].boot = {"host", "boot"};
  write_series_ledger(file, ledger);
  const SeriesEntry same = read_series_ledger(file).value().entries.at(0);
  EXPECT_EQ(same.count.deaths, 1);
  EXPECT_EQ(same.count.kept, 40);
  EXPECT_EQ(same.boot.host + same.boot.id, "hostboot");
  fs::remove(file);
}

TEST(SeriesLock, OneAtATime) {
  const fs::path file = file_named("series");
  {
    const SeriesLock lock(file);
    EXPECT_THROW(SeriesLock second(file), UsageError);
  }
  const SeriesLock again(file);
  fs::remove(file.string() + ".lock");
}

}  // namespace
}  // namespace hesspect::series_ledger_test
