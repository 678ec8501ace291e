{
  "targets": [
    {
      "target_name": "rootport",
      "sources": ["addon.c"],
      "cflags": ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"]
    }
  ]
}
