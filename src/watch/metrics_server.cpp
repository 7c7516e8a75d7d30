// The thread that answers scrapes. It reads no more of a request than it must, and believes none of it.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <optional>
#include <thread>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/watch/metrics.h"

namespace hesspect {
namespace {

constexpr std::size_t kLargestRequest = 8192;
constexpr auto kLongestRequest = std::chrono::seconds(2);
using Clock = std::chrono::steady_clock;

std::string response(const std::string& status, const std::string& body, const std::string& type,
                     const std::string& further = "") {
  return "HTTP/1.1 " + status + "\r\nContent-Type: " + type + "\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n" + further + "\r\n" +
         body;
}

std::string refusal(const std::string& status, const std::string& further = "") {
  return response(status, status + "\n", "text/plain; charset=utf-8", further);
}

/// The answer to a request whose header is whole. Its first line alone counts: METHOD TARGET HTTP/1.x
std::string answer_to(std::string_view request, const Metrics& metrics) {
  const std::string_view line = request.substr(0, request.find_first_of("\r\n"));
  const std::size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || first == 0 || line.substr(last + 1, 7) != "HTTP/1.")
    return refusal("400 Bad Request");
  std::string_view target = line.substr(first + 1, last - first - 1);
  target = target.substr(0, target.find('?'));
  if (target != "/metrics") return refusal("404 Not Found");
  if (line.substr(0, first) != "GET") return refusal("405 Method Not Allowed", "Allow: GET\r\n");
  return response("200 OK", metrics.text(), "text/plain; version=0.0.4; charset=utf-8");
}

struct AddressList {
  addrinfo* first = nullptr;
  ~AddressList() {
    if (first != nullptr) ::freeaddrinfo(first);
  }
};

/// A socket that listens there.
int listen_on(const std::string& address, int port) {
  const std::string number = address == "localhost" ? "127.0.0.1" : address;
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
  AddressList found;
  if (::getaddrinfo(number.c_str(), std::to_string(port).c_str(), &hints, &found.first) != 0)
    throw UsageError("--metrics-address: " + quote(address) +
                     " is no address: expected one as 127.0.0.1, 0.0.0.0 or ::1, or localhost");
  const addrinfo& where = *found.first;
  const int fd = ::socket(where.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  if (fd >= 0) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);  // the last start's connections still linger
  if (fd < 0 || ::bind(fd, where.ai_addr, where.ai_addrlen) != 0 || ::listen(fd, 16) != 0) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    if (error == EADDRINUSE)
      throw UsageError("--metrics-port " + std::to_string(port) + " is taken on " + address +
                       " by another program: use another port, or end that one");
    if (error == EADDRNOTAVAIL)
      throw UsageError("--metrics-address " + address +
                       " is no address of this machine: use 127.0.0.1, or 0.0.0.0 for all");
    throw UsageError("--metrics-port " + std::to_string(port) + " on " + address + ": " + std::strerror(error) +
                     (error == EACCES ? ": use one above 1023" : ""));
  }
  return fd;
}

int port_of(int fd) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size);
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                           : reinterpret_cast<sockaddr_in&>(bound).sin_port);
}

}  // namespace

struct MetricsServer::Impl {
  /// A file descriptor that is closed at the end.
  class Descriptor {
   public:
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
      if (fd_ >= 0) ::close(fd_);
    }
    int get() const { return fd_; }

   private:
    int fd_;
  };

  Impl(const Metrics& shown, const std::string& address, int port)
      : metrics(shown),
        listener(listen_on(address, port)),
        bound(port_of(listener.get())),
        wake(::eventfd(0, EFD_CLOEXEC)) {
    if (wake.get() < 0) throw UsageError(std::string("--metrics-port: ") + std::strerror(errno));
    // The process's signals belong to its main thread, which sleeps in calls that they must interrupt.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread = std::thread([this] { serve(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  ~Impl() {
    const std::uint64_t one = 1;
    while (::write(wake.get(), &one, sizeof one) < 0 && errno == EINTR) {
    }
    thread.join();
  }

  /// Waits until `fd` is ready. @return false where the server ends, or `until` has come
  bool wait_for(int fd, short events, std::optional<Clock::time_point> until) const {
    for (;;) {
      int left_ms = -1;
      if (until) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - Clock::now()).count();
        if (left <= 0) return false;
        left_ms = static_cast<int>(left);
      }
      pollfd both[2] = {{wake.get(), POLLIN, 0}, {fd, events, 0}};
      const int ready = ::poll(both, 2, left_ms);
      if (ready < 0 && errno == EINTR) continue;
      if (ready <= 0 || both[0].revents != 0) return false;
      if (both[1].revents != 0) return true;
    }
  }

  void serve() const {
    while (wait_for(listener.get(), POLLIN, std::nullopt)) {
      const Descriptor client(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (client.get() >= 0) {
        answer(client.get());
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the connection waits; poll would return at once
      }
    }
  }

  void answer(int client) const {
    const auto until = Clock::now() + kLongestRequest;
    std::string request;
    for (;;) {
      if (request.find("\r\n\r\n") != std::string::npos || request.find("\n\n") != std::string::npos) break;
      if (request.size() >= kLargestRequest) {
        send_all(client, refusal("431 Request Header Fields Too Large"), until);
        ::shutdown(client, SHUT_WR);
        drop_rest(client, until);
        return;
      }
      if (!wait_for(client, POLLIN, until)) return;
      char piece[2048];
      const ssize_t got = ::recv(client, piece, sizeof piece, 0);
      if (got > 0)
        request.append(piece, static_cast<std::size_t>(got));
      else if (got == 0 || (errno != EINTR && errno != EAGAIN))
        return;
    }
    send_all(client, answer_to(request, metrics), until);
    ::shutdown(client, SHUT_WR);
  }

  /// Reads on for a while: closing with bytes unread would take the answer back.
  void drop_rest(int client, Clock::time_point until) const {
    char piece[2048];
    for (std::size_t dropped = 0; dropped < 16 * kLargestRequest && wait_for(client, POLLIN, until);) {
      const ssize_t got = ::recv(client, piece, sizeof piece, 0);
      if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) return;
      if (got > 0) dropped += static_cast<std::size_t>(got);
    }
  }

  void send_all(int client, std::string_view text, Clock::time_point until) const {
    while (!text.empty() && wait_for(client, POLLOUT, until)) {
      const ssize_t sent = ::send(client, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent >= 0)
        text.remove_prefix(static_cast<std::size_t>(sent));
      else if (errno != EINTR && errno != EAGAIN)
        return;
    }
  }

  const Metrics& metrics;
  Descriptor listener;
  int bound;
  Descriptor wake;
  std::thread thread;
};

MetricsServer::MetricsServer(const Metrics& metrics, const std::string& address, int port)
    : impl_(std::make_unique<Impl>(metrics, address, port)) {}

MetricsServer::~MetricsServer() = default;

int MetricsServer::port() const { return impl_->bound; }

}  // namespace hesspect
