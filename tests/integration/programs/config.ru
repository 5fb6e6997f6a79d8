# SPDX-License-Identifier: MIT
# For puma: as wsgi.py.

run(lambda do |env|
  body = "hello\n"
  case env['PATH_INFO']
  when '/pid' then body = Process.pid.to_s
  when '/slow' then File.read(env['QUERY_STRING'])
  end
  [200, { 'Content-Type' => 'text/plain', 'Content-Length' => body.bytesize.to_s }, [body]]
end)
