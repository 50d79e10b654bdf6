# The serving image, and on top of it the one with TensorRT: docker build --target serve (or gpu) .
FROM python:3.12.12-slim-bookworm AS serve
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONPATH=/opt/tapewatch
WORKDIR /opt/tapewatch
COPY locks/serve.txt locks/
RUN pip install --no-deps --require-hashes --only-binary :all: -r locks/serve.txt
COPY pyproject.toml README.md LICENSE NOTICE tapewatch.py ./
COPY engines engines
COPY streams streams
COPY models models
COPY dashboard dashboard
RUN pip install --no-deps --no-build-isolation --editable . \
    && useradd --system --create-home tapewatch
USER tapewatch
ENTRYPOINT ["tapewatch"]

# Never run: no GPU was at hand. TensorRT's libraries come from NVIDIA's own package index; the driver comes from the host (nvidia-container-toolkit).
FROM serve AS gpu
ENV XDG_CACHE_HOME=/var/cache
USER root
RUN pip install --no-build-isolation --editable '.[gpu]' \
    && install -d -o tapewatch -g tapewatch -m 700 /var/cache/tapewatch
USER tapewatch
