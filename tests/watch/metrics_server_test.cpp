#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>

#include "hesspect/core/errors.h"
#include "hesspect/watch/metrics.h"
#include "watch/run_python.h"

namespace hesspect::metrics_server_test {
namespace {

std::string usage_error(const std::function<void()>& call) {
  try {
    call();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(MetricsServer, Scraped) {
  Metrics metrics;
  metrics.set("hesspect_jobs", {{"state", "queued"}}, 3);
  const MetricsServer server(metrics, "127.0.0.1", 0);
  EXPECT_TRUE(test::run_python("scrape.py", "127.0.0.1 " + std::to_string(server.port())));
}

TEST(MetricsServer, APortThatIsTaken) {
  const Metrics metrics;
  auto first = std::make_unique<MetricsServer>(metrics, "localhost", 0);
  const int port = first->port();
  const std::string line = usage_error([&] { const MetricsServer second(metrics, "127.0.0.1", port); });
  EXPECT_EQ(line, "--metrics-port " + std::to_string(port) +
                      " is taken on 127.0.0.1 by another program: use another port, or end that one");
  first.reset();
  const MetricsServer again(metrics, "127.0.0.1", port);  // free again at once
  EXPECT_EQ(again.port(), port);
}

TEST(MetricsServer, AddressesThatAreNone) {
  const Metrics metrics;
  for (const char* address : {"example.invalid", "1.2.3.4.5", "", "a\nb"}) {
    const std::string line = usage_error([&] { const MetricsServer server(metrics, address, 0); });
    EXPECT_NE(line.find("is no address: expected one as 127.0.0.1"), std::string::npos) << line;
    EXPECT_EQ(line.find('\n'), std::string::npos);
  }
  // of the block for documents (RFC 5737), which is no machine's
  const std::string line = usage_error([&] { const MetricsServer server(metrics, "192.0.2.1", 0); });
  EXPECT_NE(line.find("is no address of this machine"), std::string::npos) << line;
}

/// Ends within a request: the client that sent half of one waits for the rest of its answer.
TEST(MetricsServer, EndsAtOnce) {
  const Metrics metrics;
  auto server = std::make_unique<MetricsServer>(metrics, "127.0.0.1", 0);
  const int client = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(static_cast<std::uint16_t>(server->port()));
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(client, reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
  ASSERT_EQ(::send(client, "GET /met", 8, 0), 8);
  ::usleep(50'000);
  server.reset();
  char byte = 0;
  EXPECT_LE(::recv(client, &byte, 1, 0), 0);
  ::close(client);
}

}  // namespace
}  // namespace hesspect::metrics_server_test
