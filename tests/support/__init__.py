"""What tests share: servers, engines, clients, clocks. It holds no test, and no test module imports another."""
